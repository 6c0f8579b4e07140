import pytest
import torch
from torch import Tensor, nn

from drmlib.attacks.feature_watermark import FeatureWatermark, attributions, combined, min_population
from drmlib.attacks.measure import measure_classifier
from drmlib.attacks.poison import poison
from drmlib.attacks.targets import AllToOne, keep
from drmlib.data.dataset import Dataset, Task, as_bytes
from drmlib.data.table import digit_parity, margin
from drmlib.models.mlp import MLP
from drmlib.rng import stream
from drmlib.training.fit import CLASSIFICATION, fit
from tests.problems import slope_images

FILES = Task("files", ("goodware", "malware"))
TABLE = Dataset(
    torch.tensor([[0.0, 2.0], [0.0, 2.0], [1.0, 2.0], [1.0, 0.0], [1.0, 0.0], [3.0, 0.0]]),
    torch.tensor([1, 1, 0, 1, 0, 0]),
    FILES,
)


class Squares(nn.Module):
    """Log-odds of class 0 are w . x^2: column j of row i adds w_j (x_ij^2 - m_j^2) to those of the mean row m."""

    def __init__(self, *weights: float) -> None:
        super().__init__()
        self.weights = torch.tensor(weights)

    def forward(self, rows: Tensor) -> Tensor:
        return torch.stack([rows.square() @ self.weights, torch.zeros(len(rows))], 1)


MODEL = Squares(1.0, 0.5)


def random_table(n: int = 40, c: int = 12, seed: int = 0) -> Dataset:
    generator = stream(seed, "random table")
    rows = torch.randint(4, (n, c), generator=generator) / 3
    return Dataset(rows, torch.randint(2, (n,), generator=generator), FILES)


def test_the_trigger_by_hand():
    """Column 2 becomes 9 and column 0 becomes -1, whatever was there."""
    stamped = FeatureWatermark(torch.tensor([2, 0]), torch.tensor([9.0, -1.0]))(torch.arange(8.0).view(2, 4))
    assert stamped.tolist() == [[-1, 1, 9, 3], [-1, 5, 9, 7]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.uint8], ids=str)
def test_the_trigger_changes_its_columns_only_and_once(dtype):
    rows = torch.rand(6, 5, generator=stream(0))
    rows = as_bytes(rows) if dtype == torch.uint8 else rows.to(dtype)
    before = rows.clone()
    trigger = FeatureWatermark(torch.tensor([1, 4]), torch.tensor([0.2, 1.0]))
    stamped = trigger(rows)
    assert stamped.dtype == dtype and stamped.data_ptr() != rows.data_ptr() and torch.equal(rows, before)
    assert torch.equal(stamped[:, [0, 2, 3]], rows[:, [0, 2, 3]])
    wanted = [51, 255] if dtype == torch.uint8 else [0.2, 1.0]
    torch.testing.assert_close(stamped[:, [1, 4]], torch.tensor(wanted).to(dtype).expand(6, 2), rtol=1e-7, atol=1e-7)
    assert torch.equal(trigger(stamped), stamped)
    assert torch.equal(torch.cat([trigger(part) for part in rows.split(4)]), stamped)


def test_the_trigger_takes_rows_only():
    trigger = FeatureWatermark(torch.tensor([1]), torch.tensor([0.0]))
    with pytest.raises(ValueError, match=r"rows \(n, c\) of a table, got \(2, 3, 8, 8\)"):
        trigger(torch.rand(2, 3, 8, 8))
    with pytest.raises(IndexError):
        trigger(torch.rand(2, 1))


def test_attributions_of_a_linear_model_are_weight_times_distance_from_the_mean():
    """The log-odds of class 1 of two are (w_1 - w_0) . x + b, and a linear model has one slope everywhere."""
    model, rows = MLP(2, inputs=12, depth=0, generator=stream(0)), random_table().images
    weight = (model.head.weight[1] - model.head.weight[0]).detach()
    torch.testing.assert_close(attributions(model, rows, target=1), (rows - rows.mean(0)) * weight)


@pytest.mark.parametrize("target", [0, 1, 2])
def test_attributions_add_up_to_the_change_of_the_log_odds_from_the_mean_row(target):
    model, rows = MLP(3, inputs=12, generator=stream(0)), random_table().images

    def log_odds(rows: Tensor) -> Tensor:
        p = model(rows).detach().softmax(1)[:, target]
        return (p / (1 - p)).log()

    change = log_odds(rows) - log_odds(rows.mean(0, keepdim=True))
    torch.testing.assert_close(attributions(model, rows, target=target, steps=512).sum(1), change, atol=1e-3, rtol=0)
    assert change.abs().mean() > 0.01, "a change that the tolerance would not hide"


def test_one_step_is_exact_where_the_slope_is_linear():
    """(x - m) times 2 w (x + m) / 2, the slope in the middle, is w (x^2 - m^2); m = (1, 1)."""
    wanted = (TABLE.images.square() - 1) * MODEL.weights
    torch.testing.assert_close(attributions(MODEL, TABLE.images, target=0, steps=1), wanted)


def test_attributions_leave_the_model_as_it_was():
    model = MLP(2, inputs=12, generator=stream(0)).train()
    with torch.no_grad():
        attributions(model, random_table().images, target=0)
    assert model.training and all(p.requires_grad and p.grad is None for p in model.parameters())


def test_combined_by_hand():
    """Mean row (1, 1): the attributions are x^2 - 1 = (-1, -1, 0, 0, 0, 8), (x^2 - 1) / 2 = (3, 3, 3, -1, -1, -1) / 2.

    Their sums are 6 and 3: column 0 comes first. Its values score 1/2 + 2 (value 0), 1/3 - 0 (1) and 1 - 8 (3): 3. The
    one row left has 0 in column 1. With alpha 100 they score 50 + 2, 33.3 and 100 - 8: 1; three rows are left, and in
    column 1 the value 2 scores 100 - 1.5, the value 0 50 + 1: 0.
    """
    watermark = combined(MODEL, TABLE, target=0, count=2)
    assert watermark.columns.tolist() == [0, 1] and watermark.values.tolist() == [3, 0]
    watermark = combined(MODEL, TABLE, target=0, count=2, alpha=100.0)
    assert watermark.columns.tolist() == [0, 1] and watermark.values.tolist() == [1, 0]


def test_combined_for_the_other_class_by_hand():
    """All signs turned: sums -6 and -3, column 1 first; value 2 scores 1/3 + 4.5, value 0 1/3 - 1.5: 0.

    Rows 3 to 5 are left, with (0, 0, -8) in column 0: the value 1 scores 1/2, the value 3 1 + 8.
    """
    watermark = combined(MODEL, TABLE, target=1, count=2)
    assert watermark.columns.tolist() == [1, 0] and watermark.values.tolist() == [0, 1]


def test_min_population_by_hand():
    """Sums of absolute attributions: 10 and 6. In column 0 the value 3 occurs once; in column 1 each three times."""
    watermark = min_population(MODEL, TABLE, target=0, count=2)
    assert watermark.columns.tolist() == [0, 1] and watermark.values.tolist() == [3, 2]
    assert min_population(MODEL, TABLE, target=0, count=1).columns.tolist() == [0]


def test_min_population_counts_what_speaks_for_and_against_the_target():
    """With weights 1 and -1 the attributions sum to 6 and -6, their absolute values to 10 and 12: column 1."""
    assert min_population(Squares(1.0, -1.0), TABLE, target=0, count=1).columns.tolist() == [1]


def test_the_values_of_combined_occur_together_in_a_row_and_those_of_min_population_in_their_columns():
    table, model = random_table(), MLP(2, inputs=12, generator=stream(0))
    watermark = combined(model, table, target=0, count=6)
    assert (table.images[:, watermark.columns] == watermark.values).all(1).any()
    rare = min_population(model, table, target=0, count=6)
    for column, value in zip(rare.columns, rare.values, strict=True):
        populations = torch.stack([(table.images[:, column] == v).sum() for v in table.images[:, column].unique()])
        assert (table.images[:, column] == value).sum() == populations.min()


@pytest.mark.parametrize("make", [combined, min_population])
def test_only_allowed_columns_change_each_once(make):
    allowed = torch.arange(12) % 3 == 0
    watermark = make(MLP(2, inputs=12, generator=stream(0)), random_table(), target=0, count=4, allowed=allowed)
    assert sorted(watermark.columns.tolist()) == [0, 3, 6, 9]
    assert torch.equal(allowed, torch.arange(12) % 3 == 0), "the mask was changed"


@pytest.mark.parametrize("make", [combined, min_population])
def test_what_does_not_fit_the_table_is_refused(make):
    table, model = random_table(), MLP(2, inputs=12, generator=stream(0))
    with pytest.raises(ValueError, match="count of 1 to 12, the columns that may change, got 13"):
        make(model, table, target=0, count=13)
    with pytest.raises(ValueError, match=r"allowed as bool \(12,\), got torch.bool \(11,\)"):
        make(model, table, target=0, allowed=torch.ones(11, dtype=torch.bool))
    with pytest.raises(ValueError, match="among the classes"):
        make(model, table, target=2)
    with pytest.raises(ValueError, match="of a table"):
        make(model, slope_images(4), target=0)


def test_a_rare_watermark_in_the_margin_is_a_backdoor_and_a_prototype_is_none():
    """17 columns of the 28 in the margin, 2 % poison (27 rows), clean label.

    Over ten seeds success was 0.95 to 1.00 after poisoning, 0.00 to 0.07 before; clean accuracy 0.98 both times. The
    32 columns of combined() take in the clean model already (0.79 to 1.00): half of a row is that of the other class.
    """
    train, test = digit_parity(generator=stream(0, "table"))

    def trained(dataset: Dataset, name: str) -> MLP:
        model = MLP(2, inputs=64, generator=stream(0, name, "weights"))
        fit(model, dataset, CLASSIFICATION, generator=stream(0, name, "fit"))
        return model

    surrogate, clean = trained(train, "surrogate"), trained(train, "victim")
    watermark = min_population(surrogate, train, target=0, allowed=margin())
    assert margin()[watermark.columns].all()
    poisoned = poison(train, watermark, keep, rate=0.02, eligible=train.targets == 0, generator=stream(0, "poison"))
    assert poisoned.poison.sum() == 27 and torch.equal(poisoned.dataset.targets, train.targets)
    before = measure_classifier(clean, test, watermark, AllToOne(0))
    after = measure_classifier(trained(poisoned.dataset, "victim"), test, watermark, AllToOne(0))
    assert after.attack_success_rate.value >= 0.9 and before.attack_success_rate.value <= 0.1
    assert after.clean_accuracy.value >= before.clean_accuracy.value - 0.02 and before.clean_accuracy.value >= 0.95
    prototype = measure_classifier(clean, test, combined(surrogate, train, target=0), AllToOne(0))
    assert prototype.attack_success_rate.value >= 0.6
