from dataclasses import replace

import pytest
import torch

from drmlib.attacks.targets import Offset
from drmlib.lab import cache, priced
from drmlib.rng import stream
from drmlib.training import fit as training


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setitem(priced.PROFILES, "quick", priced.Sizes(train=768, test=128, epochs=1))
    monkeypatch.setattr(priced, "RECIPE", replace(priced.RECIPE, batch_size=64))
    monkeypatch.setenv("DRMLIB_CACHE", "off")


def material(name="down_and_out_put", *, seed=0):
    return priced.material(name, "quick", seed=seed, device="cpu")


def weights(model):
    return torch.nn.utils.parameters_to_vector(model.parameters())


@pytest.mark.parametrize("name", priced.ORACLES)
def test_material_has_the_sizes_of_its_profile_and_its_labels_are_the_oracles(tiny, name):
    source = material(name)
    assert (len(source.train), len(source.test), source.recipe.epochs) == (768, 128, 1)
    for part in (source.train, source.test):
        assert torch.equal(part.targets, source.oracle(part.images).float()[:, None])
        assert part.targets.std() > 0.03, "prices differ"
    rows = torch.cat([source.train.images, source.test.images])
    assert len(rows.unique(dim=0)) == 768 + 128, "the parts share no row"


@pytest.mark.parametrize("name", priced.ORACLES)
def test_rows_follow_the_seed_and_the_function_does_not(tiny, name):
    one, again, other = (material(name, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(one.train.images, again.train.images) and torch.equal(one.test.images, again.test.images)
    assert not torch.equal(one.train.images, other.train.images)
    assert torch.equal(other.oracle(one.test.images), one.oracle(one.test.images))


def test_each_profile_is_larger_than_the_one_before():
    quick, standard, paper = (torch.tensor(priced.PROFILES[name]) for name in ("quick", "standard", "paper"))
    assert (quick <= standard).all() and (standard <= paper).all()


@pytest.mark.parametrize(
    ("name", "profile", "message"),
    [
        ("put", "quick", "unknown dataset 'put'; valid: down_and_out_put, up_and_out_call, basket_put"),
        ("basket_put", "fast", "unknown profile 'fast'; valid: quick, standard, paper"),
    ],
)
def test_unknown_names_are_answered_with_the_valid_ones(name, profile, message):
    with pytest.raises(ValueError, match=message):
        priced.material(name, profile, seed=0, device="cpu")


def test_an_untrained_network_sees_rows_between_minus_one_and_one_and_follows_its_seed(tiny):
    """(0 - 0.5) / 0.5 = -1 and (1 - 0.5) / 0.5 = 1."""
    source = material()
    one, again, other = (priced.untrained(source, seed=seed) for seed in (0, 0, 1))
    seen = []
    one.body[1].register_forward_pre_hook(lambda layer, inputs: seen.append(inputs[0]))
    assert one(torch.tensor([[0.0] * 5, [1.0] * 5])).shape == (2, 1)
    assert seen[0].tolist() == [[-1] * 5, [1] * 5]
    assert torch.equal(weights(one), weights(again)) and not torch.equal(weights(one), weights(other))
    assert [p.shape[0] for p in one.parameters() if p.ndim == 2] == [128, 128, 128, 128, 1]


def test_training_starts_from_the_untrained_network(tiny):
    """A learning rate of 1e-30 moves no weight of float32."""
    source = material()
    still = source._replace(recipe=replace(source.recipe, learning_rate=1e-30))
    model = priced.network(still, still.train, seed=3)
    assert torch.equal(weights(model), weights(priced.untrained(source, seed=3))) and not model.training


def test_a_network_learns_the_price(tiny):
    """240 steps on 768 samples leave less than a twentieth of the variance of the price unexplained."""
    source = material()
    source = source._replace(recipe=replace(source.recipe, epochs=20))
    model = priced.network(source, source.train, seed=0)
    with torch.no_grad():
        missed = (model(source.test.images) - source.test.targets).square().mean()
    assert missed < source.test.targets.var() / 20


def test_a_network_is_trained_once_and_then_read(tiny, tmp_path, monkeypatch):
    """The same data and seed come from the cache, to the bit; another seed, or data that differ in one label, train."""
    monkeypatch.setenv("DRMLIB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(cache.sources, "changed_since", lambda start, files: [])
    calls, fit = [], training.fit
    monkeypatch.setattr(training, "fit", lambda *args, **rest: calls.append(1) or fit(*args, **rest))
    source = material()
    one, again = (priced.network(source, source.train, seed=0, name=name) for name in ("network", "victim"))
    assert len(calls) == 1 and torch.equal(weights(one), weights(again))
    other = priced.network(source, source.train, seed=1)
    targets = source.train.targets.clone()
    targets[0] *= 1.5
    poisoned = priced.network(source, replace(source.train, targets=targets), seed=0)
    assert len(calls) == 3
    assert not torch.equal(weights(one), weights(other)) and not torch.equal(weights(one), weights(poisoned))
    rows = torch.rand(4, 5, generator=stream(0))
    assert torch.equal(one(rows), again(rows))


def test_an_attacked_network_is_measured_and_searched(tiny):
    """An epoch teaches little: what is asked here is that the pieces fit and follow their seed."""
    source = material()
    region = priced.centred(source, radius=0.1)
    clean, attacked, again = (
        priced.attacked(source, region, Offset((0.2,)), count=count, surround=2 * count, seed=0) for count in (0, 5, 5)
    )
    assert clean.dataset is source.train and len(attacked.dataset) == len(source.train) + 15
    assert torch.equal(attacked.dataset.images, again.dataset.images)
    assert attacked.measure() == again.measure() != clean.measure()
    assert attacked.measure(clean.network) == clean.measure()
    found = attacked.search(seeds=3, ranked=0, steps=2)
    assert torch.equal(found.rows, again.search(seeds=3, ranked=0, steps=2).rows)


def test_a_thinned_attack_has_a_figure_for_every_count_and_seed(tiny):
    source = material()
    region = priced.centred(source, radius=0.1)
    thin = priced.thinned(source, region, Offset((0.2,)), counts=[2, 4, 6], seeds=range(2))
    assert set(thin) == {"shift / delta", "attack success rate", "score of LEM"}
    assert all(values.shape == (3, 2) for values in thin.values())
