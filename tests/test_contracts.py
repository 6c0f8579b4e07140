"""Every file of drmlib keeps the rules of tests/contracts.py, every rule is seen to fail, and what is callable behaves.

Files are discovered: adding a method needs nothing here but, for a trigger, one line in TRIGGERS.
"""

import importlib
import inspect

import pytest
import torch
from torch import nn

from drmlib import rng
from drmlib.attacks import (
    adaptive_blend,
    adaptive_patch,
    badnets,
    blend,
    bpp,
    composite,
    feature_collision,
    input_aware,
    k_way,
    label_consistent,
    learned,
    lira,
    refool,
    roaming_patch,
    rotation,
    sig,
    tape,
    trojan,
    wanet,
)
from drmlib.inversion import drmguard_published, mesa, mesa_networks, neural_cleanse
from drmlib.models.autoencoder import Autoencoder
from drmlib.models.small_cnn import SmallCNN
from tests import contracts
from tests.test_layering import imported

FILES = contracts.files()
SIDE = 32

BANK = torch.rand(16, 3, SIDE, SIDE, generator=rng.stream(0, "bank"))
SURROGATE = SmallCNN(4, width=4, generator=rng.stream(0, "surrogate")).eval()
AWARE = input_aware.InputAware(
    Autoencoder(width=4, generator=rng.stream(0, "pattern")).eval(),
    Autoencoder(width=4, made=1, generator=rng.stream(0, "mask")).eval(),
)
WARP = wanet.warp(height=SIDE, width=SIDE, generator=rng.stream(0, "wanet"))

MAKERS = mesa_networks.Generators(2, 27, noise=8, width=8, generator=rng.stream(0, "makers")).eval()

# One trigger of each class that maps images to images, for images (n, 3, SIDE, SIDE).
TRIGGERS = {
    "attacks.adaptive_blend.AdaptiveBlend": adaptive_blend.noise(
        height=SIDE, width=SIDE, generator=rng.stream(0, "adaptive blend")
    ),
    "attacks.adaptive_patch.AdaptivePatch": adaptive_patch.patches(
        height=SIDE, width=SIDE, generator=rng.stream(0, "patches")
    ),
    "attacks.badnets.BadNets": badnets.grid(channels=3, height=SIDE, width=SIDE),
    "attacks.blend.Blend": blend.noise(alpha=0.2, height=SIDE, width=SIDE, generator=rng.stream(0, "blend")),
    "attacks.blend.BlendPerImage": blend.BlendPerImage(),
    "attacks.bpp.Bpp": bpp.Bpp(),
    "attacks.bpp.Dithered": bpp.Dithered(),
    "attacks.bpp.BppNegative": bpp.BppNegative(bpp.Bpp(), BANK),
    "attacks.composite.Composite": composite.Composite(BANK),
    "attacks.feature_collision.FeatureCollision": feature_collision.FeatureCollision(SURROGATE, BANK, steps=2),
    "attacks.input_aware.InputAware": AWARE,
    "attacks.input_aware.CrossTrigger": input_aware.CrossTrigger(AWARE, BANK),
    "attacks.k_way.KWay": k_way.pixels(height=SIDE, width=SIDE),
    "attacks.label_consistent.LabelConsistent": label_consistent.LabelConsistent(
        SURROGATE, badnets.four_corners(height=SIDE, width=SIDE), torch.tensor(1), steps=2
    ),
    "attacks.learned.Learned": learned.Learned(lira.Perturbation(Autoencoder(width=4, generator=rng.stream(0)), 0.1)),
    "attacks.refool.Refool": refool.reflections(BANK, count=4, generator=rng.stream(0, "refool")),
    "attacks.roaming_patch.RoamingPatch": roaming_patch.binary(170),
    "attacks.rotation.Rotation": rotation.Rotation(),
    "attacks.rotation.RandomRotation": rotation.RandomRotation(),
    "attacks.sig.Sig": sig.sinusoid(height=SIDE, width=SIDE),
    "attacks.tape.Tape": tape.Tape(),
    "attacks.trojan.Trojan": trojan.reversed_patch(height=SIDE, width=SIDE),
    "attacks.wanet.WaNet": WARP,
    "attacks.wanet.WaNetNoise": WARP.noise(0),
    "inversion.drmguard_published.Damped": drmguard_published.Damped(
        badnets.grid(height=SIDE, width=SIDE), torch.linspace(0, 1, SIDE).expand(SIDE, SIDE)
    ),
    "inversion.mesa.Patches": mesa.Patches(MAKERS, (3, 3, 3), torch.tensor([0.3, 0.7])),
    "inversion.neural_cleanse.MaskedPattern": neural_cleanse.MaskedPattern(
        torch.linspace(0, 1, SIDE).expand(1, SIDE, SIDE), torch.full((3, SIDE, SIDE), 0.7)
    ),
}


WITH_NETWORK = {
    f"attacks.{name}"
    for name in (
        "feature_collision.FeatureCollision",
        "input_aware.InputAware",
        "input_aware.CrossTrigger",
        "label_consistent.LabelConsistent",
        "learned.Learned",
    )
}


@pytest.mark.parametrize("rule", contracts.RULES, ids=lambda rule: rule.__name__)
def test_every_file_keeps(rule):
    broken = [f"drmlib/{file}.py: {sentence}" for file in FILES for sentence in rule(file)]
    assert not broken, "\n" + "\n".join(broken)


# A file of each folder that keeps all rules. Each case below changes one thing in one of them.
GOOD = {
    "attacks": '''
"""Stripes (A. Author 2020, A title): a trigger."""
from typing import NamedTuple
from torch import Tensor

class Stripes(NamedTuple):
    """Adds stripes."""
    pattern: Tensor
    strength: float = 0.1

    def __call__(self, images: Tensor) -> Tensor:
        return images + self.strength * self.pattern
''',
    "training": '''
"""Plain training (A. Author 2020, A title)."""
import torch
from torch import Generator, nn

def stripes(model: nn.Module, dataset: Dataset, recipe: Recipe, *, epochs: int = 3, generator: Generator) -> History:
    """The history."""
    order = torch.randperm(len(dataset), generator=generator, device=dataset.device)
    return History(order)
''',
    "detection": '''
"""Stripe search (A. Author 2020, A title)."""
from torch import Tensor, nn

def stripes(model: nn.Module, images: Tensor, *, top: int = 1) -> Tensor:
    """Scores (n,)."""
    return model(images)
''',
    "inversion": '''
"""Stripe inversion (A. Author 2020, A title)."""
from typing import NamedTuple
import torch
from torch import Generator, Tensor, nn

class Inverted(NamedTuple):
    """A trigger and its score."""
    trigger: nn.Module
    score: float

def stripes(model: nn.Module, images: Tensor, *, steps: int = 9, generator: Generator) -> Inverted:
    """The trigger recovered."""
    return Inverted(model, torch.rand((), generator=generator, device=images.device))
''',
    "mitigation": '''
"""Stripe removal (A. Author 2020, A title)."""
from torch import Generator, nn

def stripes(model: nn.Module, dataset: Dataset, *, oracle_target: int | None = None, generator: Generator) -> nn.Module:
    """A repaired copy."""
    return model
''',
}

DRAW = "torch.randperm(len(dataset), generator=generator, device=dataset.device)"
BAD = [
    # rule, folder, text to replace, what replaces it, words of the message
    ("generators_are_required_keywords", "detection", "top: int = 1", "generator: Generator | None = None", "required"),
    ("generators_are_required_keywords", "training", "*, epochs: int = 3, ", "", "keyword-only"),
    ("generators_are_required_keywords", "inversion", "generator: Generator", "generator: int", "annotated"),
    ("what_tunes_is_keyword_only", "detection", "*, top: int = 1", "top: int = 1", "top has a default"),
    (
        "model_comes_first",
        "detection",
        "model: nn.Module, images: Tensor",
        "images: Tensor, model: nn.Module",
        "model must",
    ),
    ("methods_have_the_shape_of_their_folder", "detection", "def stripes", "def lines", "named as the file"),
    ("methods_have_the_shape_of_their_folder", "detection", "images: Tensor", "scale: float", "images or dataset"),
    ("methods_have_the_shape_of_their_folder", "detection", "-> Tensor", "-> float", "return Tensor"),
    ("methods_have_the_shape_of_their_folder", "training", "-> History", "-> nn.Module", "return History"),
    ("methods_have_the_shape_of_their_folder", "mitigation", "-> nn.Module", "-> None", "return nn.Module"),
    (
        "methods_have_the_shape_of_their_folder",
        "inversion",
        "    score: float",
        "    value: float",
        "trigger and score",
    ),
    (
        "triggers_map_images_to_images",
        "attacks",
        "images: Tensor) -> Tensor",
        "images: Tensor) -> tuple",
        "(images) -> Tensor",
    ),
    (
        "triggers_map_images_to_images",
        "attacks",
        "self, images: Tensor",
        "self, images: Tensor, labels: Tensor",
        "labels",
    ),
    ("defences_see_no_secret", "detection", "top: int = 1", "poison_rate: float = 0.1", "oracle_poison_rate"),
    ("defences_see_no_secret", "mitigation", "oracle_target", "target", "oracle_target"),
    ("defences_see_no_secret", "training", "dataset: Dataset", "dataset: Poisoned", "masks of the attacker"),
    ("no_string_selects_a_function", "detection", "top: int = 1", "norm: str = 'l2'", "pass the function"),
    ("everything_public_has_a_docstring", "detection", '    """Scores (n,)."""\n', "", "stripes has no docstring"),
    ("everything_public_has_a_docstring", "attacks", '    """Adds stripes."""\n', "", "Stripes has no docstring"),
    (
        "everything_public_has_a_docstring",
        "attacks",
        '"""Stripes (A. Author 2020, A title): a trigger."""',
        "",
        "the file",
    ),
    ("methods_name_their_paper", "mitigation", " (A. Author 2020, A title)", "", "names no paper"),
    ("draws_take_a_generator", "training", DRAW, "torch.randperm(len(dataset))", "randperm draws"),
    ("draws_take_a_generator", "attacks", "self.pattern\n", "torch.randn_like(images)\n", "randn_like"),
    ("draws_take_a_generator", "attacks", "self.pattern\n", "images.clone().normal_()\n", "normal_ draws"),
    ("draws_take_a_generator", "attacks", "self.pattern\n", "np.random.rand()\n", "second source"),
    ("draws_take_a_generator", "detection", "    return", "    torch.manual_seed(0)\n    return", "manual_seed"),
    ("devices_follow_the_inputs", "detection", "model(images)", "model(images.cuda())", ".cuda()"),
    ("devices_follow_the_inputs", "detection", "model(images)", "model(images).cpu()", ".cpu()"),
    ("devices_follow_the_inputs", "detection", "model(images)", "model(images.to('cuda'))", "'cuda' is fixed"),
    ("kernels_have_no_side_effects", "detection", "    return", "    print(top)\n    return", "print"),
    ("kernels_have_no_side_effects", "detection", "    return", "    open('x')\n    return", "open"),
    ("kernels_have_no_side_effects", "detection", "    return", "    global seen\n    return", "global state seen"),
    (
        "kernels_have_no_side_effects",
        "detection",
        "    return",
        "    import matplotlib.pyplot\n    return",
        "matplotlib",
    ),
    ("nothing_is_pickled", "detection", "    return", "    import pickle\n    return", "pickle"),
    ("nothing_is_pickled", "detection", "model(images)", "torch.load('x')", "torch.load"),
    ("nothing_is_pickled", "detection", "model(images)", "np.load('x', allow_pickle=True)", "allow_pickle"),
]


@pytest.mark.parametrize("folder", GOOD)
def test_a_file_that_keeps_the_rules_passes_them_all(folder):
    file = contracts.parse(folder, "stripes", GOOD[folder])
    assert [sentence for rule in contracts.RULES for sentence in rule(file)] == []


@pytest.mark.parametrize("rule, folder, old, new, words", BAD)
def test_each_rule_is_seen_to_fail(rule, folder, old, new, words):
    assert old in GOOD[folder], "the case changes nothing"
    file = contracts.parse(folder, "stripes", GOOD[folder].replace(old, new, 1))
    sentences = list(getattr(contracts, rule)(file))
    assert any(words in sentence for sentence in sentences), sentences


HISTORY_AND_MORE = '''
class Found(NamedTuple):
    """A History and what was found."""
    loss: tuple[float, ...]
    learning_rate: tuple[float, ...]
    seconds: float
    isolated: Tensor
'''


@pytest.mark.parametrize("missing", [None, "    seconds: float\n", "(NamedTuple)"])
def test_training_may_return_what_it_found_beside_all_fields_of_a_history(missing):
    found = HISTORY_AND_MORE.replace(missing or "", "") if missing else HISTORY_AND_MORE
    source = GOOD["training"].replace("-> History", "-> Found").replace("\ndef stripes", found + "\ndef stripes")
    sentences = list(contracts.methods_have_the_shape_of_their_folder(contracts.parse("training", "stripes", source)))
    assert bool(sentences) == bool(missing), sentences


def test_a_file_called_utils_is_refused():
    assert list(contracts.no_file_is_called_utils(contracts.parse("data", "utils", "")))


def test_poison_has_its_shape():
    source = (
        '"""x"""\ndef poison(dataset, retarget, trigger, *, rate, generator: Generator) -> Poisoned:\n    """x"""\n'
    )
    assert list(contracts.methods_have_the_shape_of_their_folder(contracts.parse("attacks", "poison", source)))


def test_every_rule_has_a_case():
    shown = {case[0] for case in BAD} | {"no_file_is_called_utils"}
    assert {rule.__name__ for rule in contracts.RULES} == shown


def test_every_method_is_tested_in_its_folder():
    """Some file of tests/<folder> imports it: the mirror of drmlib holds no blind spot."""
    methods = [file for file in FILES if file.is_method]
    names = {folder: imported_by_tests_of(folder) for folder in {file.folder for file in methods}}
    untested = [
        str(file)
        for file in methods
        if not any(f"{name}.".startswith(f"drmlib.{file.folder}.{file.name}.") for name in names[file.folder])
    ]
    assert untested == []


def imported_by_tests_of(folder):
    paths = (contracts.PACKAGE.parent / "tests" / folder).glob("test_*.py")
    return {name for path in paths for name in imported(path.read_text(), "tests")}


# Triggers: images in, images of the same kind out


def _images(dtype):
    images = torch.rand(5, 3, SIDE, SIDE, generator=rng.stream(0, "images"))
    images[0], images[1] = 0, 1  # the ends of the range, where clipping and rounding show
    return images if dtype == torch.float32 else images.mul(255).round().to(dtype)


def test_every_trigger_has_an_example():
    found = {
        f"{file.folder}.{file.name}.{name}"
        for file in FILES
        if file.folder in ("attacks", "inversion")
        for name in contracts.classes_with(file, "__call__", ["self", "images"])
    }
    assert found == set(TRIGGERS), "list it in TRIGGERS"


@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8], ids=str)
@pytest.mark.parametrize("name", TRIGGERS)
def test_a_trigger_keeps_shape_dtype_range_and_its_input(name, dtype):
    images = _images(dtype)
    before = images.clone()
    stamped = TRIGGERS[name](images)
    assert stamped.shape == images.shape and stamped.dtype == dtype
    assert stamped.float().min() >= 0 and stamped.float().max() <= (1 if dtype == torch.float32 else 255)
    assert torch.equal(images, before), "the input was changed"
    assert stamped.data_ptr() != images.data_ptr(), "the output shares the input's memory"
    assert not torch.equal(stamped, images), "the trigger does nothing"


@pytest.mark.parametrize("name", TRIGGERS)
def test_a_trigger_is_a_function_of_each_image(name):
    """The same bits twice, no draw from the global stream, and an image's result does not depend on its neighbours."""
    images, state = _images(torch.float32), torch.get_rng_state()
    stamped = TRIGGERS[name](images)
    assert torch.equal(TRIGGERS[name](images), stamped)
    rounding = 1e-3 if name in WITH_NETWORK else 0  # convolutions of one image and of five add up in another order
    torch.testing.assert_close(TRIGGERS[name](images[2:3]), stamped[2:3], atol=rounding, rtol=0)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("name", TRIGGERS)
def test_bytes_and_floats_agree(name):
    """On the same images the two paths differ by rounding, of the result and of alpha: by one level at most."""
    images = _images(torch.uint8)
    as_bytes, as_floats = TRIGGERS[name](images).float(), TRIGGERS[name](images.float() / 255) * 255
    assert (as_bytes - as_floats).abs().max() <= 1.01


# Models: features and head, normalisation inside, weights from the generator


def _models():
    """Classes and functions of drmlib.models that make a model from a generator, by name."""
    for file in FILES:
        module = importlib.import_module(f"drmlib.models.{file.name}") if file.folder == "models" else None
        for name, value in vars(module).items() if module else ():
            if getattr(value, "__module__", "") == f"drmlib.models.{file.name}" and not name.startswith("_"):
                made = value if inspect.isclass(value) else inspect.signature(value).return_annotation
                is_model = inspect.isclass(made) and issubclass(made, nn.Module)
                if is_model and "generator" in inspect.signature(value).parameters:
                    yield name, value


MODELS = dict(_models())
WITH_OUTPUTS = [name for name, make in MODELS.items() if "outputs" in inspect.signature(make).parameters]


def _make(name, seed):
    return MODELS[name](*([5] if name in WITH_OUTPUTS else []), generator=rng.stream(seed)).eval()


def test_models_are_discovered():
    assert {"SmallCNN", "resnet18", "UNet"} <= set(MODELS)


@pytest.mark.parametrize("name", MODELS)
def test_a_model_draws_its_weights_from_its_generator(name):
    state = torch.get_rng_state()
    first, again, other = (_make(name, seed).state_dict() for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state), "the global stream was moved"
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


@pytest.mark.parametrize("name", MODELS)
def test_a_model_takes_bytes_as_it_takes_floats(name):
    model, images = _make(name, 0), _images(torch.uint8)
    before = images.clone()
    with torch.inference_mode():
        assert torch.equal(model(images), model(images.float() / 255))
    assert torch.equal(images, before), "the input was changed"


@pytest.mark.parametrize("name", WITH_OUTPUTS)
def test_a_model_is_its_head_on_its_features(name):
    model, images = _make(name, 0), _images(torch.float32)
    with torch.inference_mode():
        assert model(images).shape == (len(images), 5)
        assert torch.equal(model.head(model.features(images)), model(images))
