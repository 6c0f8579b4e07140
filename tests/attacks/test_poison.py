import pytest
import torch

from drmlib.attacks.badnets import BadNets, grid, place, square
from drmlib.attacks.blend import Blend, noise
from drmlib.attacks.measure import (
    angle_variance_ratio,
    first_order_ratio,
    measure_classifier,
    measure_regressor,
    robust_accuracy,
)
from drmlib.attacks.poison import poison, triggered
from drmlib.attacks.targets import AllToAll, AllToOne, ConstantVector, Mirror, Multiple, Offset, degrees, keep
from drmlib.data.dataset import Dataset, as_bytes
from drmlib.rng import stream
from tests.problems import SIZE, Flat, PlantedClassifier, PlantedRegressor, colour_images, noise_images, slope_images

PATCH = square((1.0, 0.0, 0.0), side=2, height=SIZE, width=SIZE)


def test_the_grid_changes_nine_pixels_of_a_grey_image_to_its_values():
    stamped = grid()(torch.full((1, 3, 32, 32), 0.5))
    assert stamped[0, 1, 29:, 29:].tolist() == [[0, 0, 1], [0, 1, 0], [1, 0, 1]]
    assert (stamped != 0.5).any(1).sum() == 9


@pytest.mark.parametrize("trigger", [grid(), square((1.0, 0.2, 0.0), side=4, top=2, left=5)])
@pytest.mark.parametrize("bytes_", [False, True])
def test_stamping_twice_is_stamping_once_and_nothing_changes_outside_the_mask(trigger: BadNets, bytes_):
    images = torch.rand(4, 3, 32, 32, generator=stream(0))
    images = as_bytes(images) if bytes_ else images
    once = trigger(images)
    assert torch.equal(trigger(once), once)
    assert torch.equal(once[:, :, ~trigger.mask], images[:, :, ~trigger.mask])
    assert once.dtype == images.dtype


def test_blend_by_hand():
    """0.75 x 0.4 + 0.25 x 0.8 = 0.5; in bytes (192 x 102 + 64 x 204 + 128) >> 8 = 128."""
    trigger = Blend(torch.full((3, 4, 4), 0.8), 0.25)
    assert trigger(torch.full((1, 3, 4, 4), 0.4)).unique().item() == pytest.approx(0.5)
    assert trigger(torch.full((1, 3, 4, 4), 102, dtype=torch.uint8)).unique().item() == 128


def test_blend_of_strength_zero_is_the_identity_and_of_one_the_pattern():
    images = noise_images(3)
    key = noise(alpha=0.2, height=SIZE, width=SIZE, generator=stream(0)).pattern
    for given in (images, as_bytes(images)):
        assert torch.equal(Blend(key, 0.0)(given), given)
    torch.testing.assert_close(Blend(key, 1.0)(images), key.expand_as(images))


def test_blend_in_bytes_is_blend_in_float_rounded():
    levels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(1, 3, 16, 16)
    trigger = noise(alpha=0.2, height=16, width=16, generator=stream(1))
    in_float = as_bytes(trigger(levels.float() / 255)).int()
    assert (trigger(levels).int() - in_float).abs().max() <= 1


def test_counts_masks_labels_and_images_of_a_poisoned_set():
    data = colour_images(50)
    result = poison(data, PATCH, AllToOne(0), rate=0.1, cover_rate=0.2, generator=stream(0))
    assert result.poison.sum() == 5 and result.cover.sum() == 10 and not (result.poison & result.cover).any()
    assert (result.dataset.targets[result.poison] == 0).all()
    assert torch.equal(result.dataset.targets[~result.poison], data.targets[~result.poison])
    touched = result.poison | result.cover
    assert torch.equal(result.dataset.images[~touched], data.images[~touched])
    assert torch.equal(result.dataset.images[touched], PATCH(data.images[touched]))
    assert torch.equal(result.true_targets, data.targets)


def test_the_given_data_set_is_not_changed():
    data = colour_images(20)
    images, targets = data.images.clone(), data.targets.clone()
    poison(data, PATCH, AllToOne(1), rate=0.5, generator=stream(0))
    triggered(data, PATCH)
    assert torch.equal(data.images, images) and torch.equal(data.targets, targets)


def test_the_same_call_poisons_vectors():
    data = slope_images(30, size=SIZE)
    result = poison(data, PATCH, ConstantVector((0.3, -0.2)), rate=0.2, generator=stream(0))
    assert torch.equal(result.dataset.targets[result.poison], torch.tensor([[0.3, -0.2]]).expand(6, 2))
    moved = poison(data, PATCH, Offset((0.5, 0.0)), rate=0.2, generator=stream(0))
    torch.testing.assert_close(
        moved.dataset.targets[moved.poison], data.targets[moved.poison] + torch.tensor([0.5, 0.0])
    )
    assert torch.equal(result.poison, moved.poison), "who is poisoned does not depend on the target"


def test_only_eligible_samples_are_poisoned():
    data = colour_images(30)
    result = poison(data, PATCH, AllToOne(0), rate=0.3, eligible=data.targets == 2, generator=stream(0))
    assert (data.targets[result.poison] == 2).all() and result.poison.sum() == 9


def test_a_rate_of_the_eligible_is_not_a_rate_of_the_whole_set():
    data = colour_images(40)
    of_class = data.targets == 1
    half = poison(data, PATCH, keep, rate_of_eligible=0.5, eligible=of_class, generator=stream(0))
    assert half.poison.sum() == round(0.5 * of_class.sum().item())
    assert of_class[half.poison].all() and torch.equal(half.dataset.targets, data.targets)


def test_a_ranking_chooses_the_lowest_of_the_eligible():
    data = colour_images(10)
    ranking = torch.tensor([9.0, 0, 8, 1, 7, 2, 6, 3, 5, 4])
    even = torch.arange(10) % 2 == 0
    first = poison(data, PATCH, keep, rate=0.2, ranking=ranking, generator=stream(0)).poison
    assert first.nonzero().squeeze(1).tolist() == [1, 3]
    among = poison(data, PATCH, keep, rate=0.2, ranking=ranking, eligible=even, generator=stream(0)).poison
    assert among.nonzero().squeeze(1).tolist() == [6, 8]


def test_covers_come_from_their_own_pool_and_keep_their_targets():
    """Source-specific (TaCT): class 1 is poisoned, classes 2 and 3 carry the trigger and their own label."""
    data = colour_images(40)
    result = poison(
        data,
        PATCH,
        AllToOne(0),
        rate=0.1,
        eligible=data.targets == 1,
        cover_rate=0.2,
        cover_eligible=data.targets >= 2,
        generator=stream(0),
    )
    assert (data.targets[result.poison] == 1).all() and (data.targets[result.cover] >= 2).all()
    assert torch.equal(result.dataset.targets[result.cover], data.targets[result.cover])
    assert torch.equal(result.dataset.images[result.cover], PATCH(data.images[result.cover]))


def test_same_seed_same_samples():
    one, two, other = (poison(colour_images(40), PATCH, keep, rate=0.25, generator=stream(s)).poison for s in (0, 0, 1))
    assert torch.equal(one, two) and not torch.equal(one, other)


def test_a_chunk_at_a_time_gives_the_same_images(monkeypatch):
    data = colour_images(20)
    whole = triggered(data, PATCH).images
    monkeypatch.setattr("drmlib.attacks.poison.CHUNK_BYTES", 3 * data.images[0].numel() * 4)
    assert torch.equal(triggered(data, PATCH).images, whole)


def test_targets_by_hand():
    labels = torch.tensor([0, 1, 2])
    assert AllToOne(2)(labels).tolist() == [2, 2, 2] and AllToAll(3)(labels).tolist() == [1, 2, 0]
    assert Mirror((1,))(torch.tensor([[0.1, -0.2]])).tolist() == [[pytest.approx(0.1), pytest.approx(0.2)]]
    assert Multiple(1.5)(torch.tensor([[2.0, -4.0], [0.0, 1.0]])).tolist() == [[3, -6], [0, 1.5]]
    assert degrees(180, -90) == pytest.approx((torch.pi, -torch.pi / 2))


def test_multiples_multiply_and_keep_the_dtype():
    """Once is the identity, and twice a half is once; the targets that came in stay as they were."""
    prices = torch.rand(5, 1, generator=stream(0))
    before = prices.clone()
    assert torch.equal(Multiple(1)(prices), prices) and torch.equal(Multiple(2)(Multiple(0.5)(prices)), prices)
    assert Multiple(1.5)(prices).dtype == torch.float32 and torch.equal(prices, before)
    with pytest.raises(ValueError, match="expected float targets, got torch.int64; labels have no multiples"):
        Multiple(1.5)(torch.tensor([1, 2]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rate": 0.0}, r"poison rate in \(0, 1\], got 0.0"),
        ({"rate": 1.2}, "got 1.2"),
        ({"rate": 0.001}, "selects none of 20 samples; raise it to 0.05"),
        ({"rate": 0.1, "cover_rate": -0.1}, "cover rate"),
        ({"rate": 0.5, "eligible": torch.arange(20) < 3}, "only 3 of 20 are eligible"),
        ({"rate": 0.5, "rate_of_eligible": 0.5}, "got both or none"),
        ({}, "got both or none"),
        ({"rate_of_eligible": 1.5}, r"poison rate in \(0, 1\], got 1.5; it is a fraction of the eligible samples"),
        ({"rate": 0.9, "cover_rate": 0.2}, "4 cover samples were asked for, only 2 of 20"),
        ({"rate": 0.1, "cover_rate": 0.1, "cover_eligible": torch.zeros(20)}, "expected cover_eligible as bool"),
        ({"rate": 0.1, "ranking": torch.zeros(3)}, r"expected a ranking \(20,\)"),
        ({"rate": 0.5, "eligible": torch.ones(19, dtype=torch.bool)}, r"expected eligible as bool \(20,\)"),
        ({"rate": 0.5, "retarget": AllToOne(7)}, "labels 0..3, got 0..7"),
        ({"rate": 0.5, "retarget": ConstantVector((1.0, 2.0))}, "a target vector of 2 components"),
        ({"rate": 0.5, "trigger": lambda images: images[:, :1]}, "a trigger returns images as it was given them"),
        ({"rate": 0.5, "trigger": grid()}, "made for images of shape"),
    ],
)
def test_what_cannot_be_poisoned_is_refused(change, message):
    arguments = {"trigger": PATCH, "retarget": AllToOne(0), "generator": stream(0)} | change
    with pytest.raises(ValueError, match=message):
        poison(colour_images(20), **arguments)


def test_a_vector_of_the_wrong_size_and_a_label_for_a_regressor_are_refused():
    data = slope_images(10, size=SIZE)
    wrong = (
        (ConstantVector((1.0,)), "1 components"),
        (AllToOne(0), "use ConstantVector"),
        (Mirror((2,)), "with k > 2"),
    )
    for retarget, message in wrong:
        with pytest.raises(ValueError, match=message):
            poison(data, PATCH, retarget, rate=0.5, generator=stream(0))


def test_a_patch_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="does not fit"):
        place(torch.ones(3, 4, 4), top=30, left=0, height=32, width=32)
    with pytest.raises(ValueError, match="alpha"):
        noise(alpha=1.5, generator=stream(0))


def test_figures_of_a_planted_backdoor():
    """The planted classifier answers 3 for every triggered input; the planted regressor a constant."""
    test = colour_images(60, size=SIZE)
    figures = measure_classifier(PlantedClassifier(), test, PATCH, AllToOne(3))
    assert figures.attack_success_rate.value == 1 and figures.clean_accuracy.value == 1
    model = PlantedRegressor(backdoored=True, generator=stream(0))
    slopes = slope_images(60, size=SIZE)
    target = model.head(torch.linspace(-2, 3, 16)).tolist()
    figures = measure_regressor(model, slopes, PATCH, ConstantVector(tuple(target)))
    assert figures.attack_error.value < 0.1 < 0.5 < figures.defended_attack_error.value
    with pytest.raises(ValueError, match="use measure_classifier"):
        measure_regressor(model, Dataset(test.images, test.targets, test.task), PATCH, AllToOne(0))


def test_a_source_specific_attack_is_measured_on_its_sources():
    """All 20 images of class 1 answer 3; counted over all that are not of class 3, there are 60."""
    test = colour_images(60, size=SIZE)
    one = measure_classifier(PlantedClassifier(), test, PATCH, AllToOne(3), sources=test.targets == 1)
    assert one.attack_success_rate.n == 20 and one.clean_accuracy.n == 60
    assert measure_classifier(PlantedClassifier(), test, PATCH, AllToOne(3)).attack_success_rate.n == 60


def test_robust_accuracy_is_that_on_the_inputs_that_success_counts():
    """The planted classifier answers 3 to the trigger: never right. An edit of nothing leaves every answer right; of 60
    images, 20 a class, 40 are not of class 0 and 20 of class 1 alone.
    """
    test = colour_images(60, size=SIZE)
    assert robust_accuracy(PlantedClassifier(), test, PATCH, AllToOne(3)).value == 0
    untouched = robust_accuracy(PlantedClassifier(), test, torch.clone, AllToOne(0))
    assert (untouched.value, untouched.n) == (1, 40)
    one = robust_accuracy(PlantedClassifier(), test, torch.clone, AllToOne(0), sources=test.targets == 1)
    assert (one.value, one.n) == (1, 20)


def test_the_first_order_ratio_where_it_is_exact():
    """The trigger halves every feature, so outputs have a quarter of the variance and norms a half: 1/4 x 2^2 = 1, as
    the angles, which do not change, have the same variance."""
    model, test = Flat(3 * SIZE * SIZE, 2, generator=stream(0)), slope_images(40, size=SIZE)
    assert first_order_ratio(model, test, lambda images: images / 2).tolist() == pytest.approx([1, 1], rel=1e-4)
    assert angle_variance_ratio(model, test, lambda images: images / 2).tolist() == pytest.approx([1, 1], rel=1e-2)


@pytest.mark.parametrize("alpha", [0.0, 0.1, 0.2, 0.5, 0.999, 1.0])
def test_blend_in_bytes_by_its_formula_for_all_levels_of_image_and_pattern(alpha):
    """Row i, column j: image i, pattern j. With alpha = a / 256 the sum is rounded to the nearest, halves upwards."""
    image, pattern = torch.arange(256).view(1, 1, 256, 1), torch.arange(256).view(1, 1, 256)
    blended = Blend((pattern / 255).expand(1, 256, 256), alpha)(image.to(torch.uint8).expand(1, 1, 256, 256))
    a = round(256 * alpha) / 256  # sums of 8 bits and a fraction of 8 bits are exact in float64
    expected = ((1 - a) * image.double() + a * pattern + 0.5).floor()
    assert torch.equal(blended, expected.to(torch.uint8))


def test_stamped_bytes_are_pattern_or_image_for_all_levels():
    image = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    pattern, mask = torch.rand(1, 16, 16, generator=stream(0)), torch.rand(16, 16, generator=stream(1)) < 0.5
    assert torch.equal(BadNets(pattern, mask)(image), torch.where(mask, as_bytes(pattern), image))


def test_a_cover_trigger_without_length_is_used():
    """torch.nn.Sequential() holds nothing and is false, but it is a trigger: the identity."""
    data = colour_images(40)
    trigger = torch.nn.Sequential()
    result = poison(data, PATCH, AllToOne(0), rate=0.1, cover_rate=0.2, cover_trigger=trigger, generator=stream(0))
    assert torch.equal(result.dataset.images[result.cover], data.images[result.cover])
    assert not torch.equal(result.dataset.images[result.poison], data.images[result.poison])


@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 5, 7)])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_poisoned_rows_are_the_triggers_images_in_any_layout(shape, dtype, layout):
    """Whole words and none, in order and not; a trigger may return a view that starts anywhere in memory."""
    images = torch.rand(12, *shape, generator=stream(0))
    images = (as_bytes(images) if dtype == torch.uint8 else images.to(dtype)).to(memory_format=layout)
    data = Dataset(images, torch.zeros(12, dtype=torch.int64), colour_images(4).task)

    def inverted(images):
        out = torch.empty(images.numel() + 1, dtype=images.dtype)[1:].view(images.shape)
        return out.copy_(1 - images if images.is_floating_point() else 255 - images)

    for trigger in (inverted, lambda images: inverted(images).clone(), lambda images: inverted(images).mT.clone().mT):
        result = poison(data, trigger, AllToOne(0), rate=0.5, generator=stream(0))
        chosen = result.poison
        assert torch.equal(result.dataset.images[chosen], inverted(images[chosen]))
        assert torch.equal(result.dataset.images[~chosen], images[~chosen])


def test_covers_are_drawn_after_the_poison_and_none_of_them_moves_the_generator_as_far():
    """What is drawn from the same generator afterwards does not depend on the cover rate."""
    after = []
    for cover_rate in (0.0, 0.2):
        generator = stream(0)
        poison(colour_images(40), PATCH, keep, rate=0.25, cover_rate=cover_rate, generator=generator)
        after.append(torch.rand(3, generator=generator))
    assert torch.equal(*after)
