"""What the name of an attack stands for: trigger, who is poisoned, covers and rate, put together as its paper does.

The default rates are the paper's or, where the paper names none, those of the toolkits that the trigger's file names.
Learned triggers are learned here, for as many steps as EFFORT says: that is all that the profiles change.
"""

from drmlib.attacks.measure import ClassifierFigures, RegressorFigures
from drmlib.attacks.poison import Retarget
from drmlib.attacks.targets import AllToOne
from drmlib.lab import attacks_by_label as by_label
from drmlib.lab import attacks_by_trigger as by_trigger
from drmlib.lab import attacks_learned
from drmlib.lab.staging import Case, Effort, Staged
from drmlib.lab.victims import Material, victim
from drmlib.session import lookup

EFFORT = {"quick": Effort(600, 8), "standard": Effort(4000, 16), "paper": Effort(20_000, 32)}
CLEAN_LABEL, LEARNED = by_label.CLEAN_LABEL, attacks_learned.LEARNED
_ANY_TASK = by_trigger.PATCHES | by_trigger.WHOLE_IMAGE | by_label.ADAPTIVE
CLOSED_FORM = _ANY_TASK | by_label.WITH_LABELS | by_label.WAVES
CLASSIFIER = CLOSED_FORM | CLEAN_LABEL | LEARNED
REGRESSOR = _ANY_TASK | LEARNED | by_trigger.ON_REGRESSORS | attacks_learned.ON_REGRESSORS | by_label.ON_REGRESSORS


def stage(name: str, source: Material, retarget: Retarget, *, profile: str, seed: int, rate: float = 0.0) -> Staged:
    """The attack called `name` carried out on source.train. rate: of the whole set; 0 for the attack's own."""
    table = REGRESSOR if source.train.task.is_regression else CLASSIFIER
    plan, effort = lookup("attack", name, table), lookup("profile", profile, EFFORT)
    case = Case(source, retarget, rate or plan.rate, seed, effort)
    if plan.of_class and not rate and isinstance(retarget, AllToOne):
        case = case._replace(rate=plan.rate * case.of_target.float().mean().item())
    return plan.carry_out(case)


def outcome(
    staged: Staged, source: Material, *, seed: int, name: str = "victim"
) -> ClassifierFigures | RegressorFigures:
    """The figures of a victim trained on the poisoned set, or the same from the cache, on source.test."""
    return staged.measure(victim(source, staged.poisoned.dataset, seed=seed, name=name), source.test)
