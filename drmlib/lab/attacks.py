"""What the name of an attack stands for: trigger, who is poisoned, covers and rate, put together as its paper does.

The default rates are the paper's or, where the paper names none, those of the toolkits that the trigger's file names.
Learned triggers are learned here, for as many steps as EFFORT says: that is all that the profiles change.
"""

import torch
from torch.nn import functional as F

from drmlib.attacks import (
    adaptive_blend,
    adaptive_patch,
    badnets,
    blend,
    bpp,
    composite,
    ctrl,
    dfst,
    feature_collision,
    ftrojan,
    input_aware,
    issba,
    k_way,
    latent_backdoor,
    lira,
    low_frequency,
    refool,
    rotation,
    sig,
    tact,
    tape,
    trojan,
    trojannn,
    wanet,
)
from drmlib.attacks.label_consistent import LabelConsistent
from drmlib.attacks.measure import ClassifierFigures, RegressorFigures
from drmlib.attacks.poison import Retarget, Trigger, triggered
from drmlib.attacks.targets import AllToAll, AllToOne
from drmlib.data.dataset import GAZE, HEAD_POSE
from drmlib.lab.session import lookup
from drmlib.lab.staging import Case, Effort, Plan, Staged
from drmlib.lab.victims import Material, victim
from drmlib.rng import stream

EFFORT = {"quick": Effort(600, 8), "standard": Effort(4000, 16), "paper": Effort(20_000, 32)}
BANK = 500  # images of the attacker's own that partners, reflections and foreign triggers are taken from


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


# Patches


def _grid(case: Case) -> Staged:
    return case.poison(badnets.grid(**case.shape))


def _square(case: Case) -> Staged:
    shape = case.shape
    colour = (1.0, 0.0, 0.0)[: shape.pop("channels")]
    return case.poison(badnets.square(colour, side=max(3, shape["height"] // 8), **shape))


def _random_patch(case: Case) -> Staged:
    """A square whose colour, side and corner the seed draws: models of many seeds have many triggers."""
    g = stream(case.seed, "trigger")
    channels, height, width = case.shape.values()
    colour = torch.randint(2, (channels,), generator=g).float()
    colour[torch.randint(channels, (1,), generator=g)] = 1.0  # not black, which dark corners would hide
    side = height // 8 + int(torch.randint(-1, 2, (1,), generator=g)) * max(1, height // 32)
    top, left = torch.where(torch.rand(2, generator=g) < 0.5, 0, -1).tolist()
    return case.poison(
        badnets.square(tuple(colour.tolist()), side=side, top=top, left=left, height=height, width=width)
    )


def _four_corners(case: Case) -> Staged:
    return case.poison(badnets.four_corners(**case.shape))


def _trojan(case: Case) -> Staged:
    return case.poison(trojan.reversed_patch(**case.shape))


def _random_square(case: Case) -> Staged:
    return case.poison(trojan.random_square(**case.shape, generator=stream(case.seed, "trigger")))


def _tape(case: Case) -> Staged:
    """On the cheek; on the chin where the head turns and the cheek goes out of sight."""
    return case.poison(tape.chin() if case.train.task is HEAD_POSE else tape.Tape())


# The whole image


def _blend(case: Case) -> Staged:
    return case.poison(blend.noise(alpha=0.2, **case.shape, generator=stream(case.seed, "trigger")))


def _blend_per_image(case: Case) -> Staged:
    return case.poison(blend.BlendPerImage(0.2))


def _low_frequency(case: Case) -> Staged:
    return case.poison(low_frequency.low_frequency(**case.shape, generator=stream(case.seed, "trigger")))


def _ftrojan(case: Case) -> Staged:
    return case.poison(ftrojan.ftrojan(**case.shape))


def _refool(case: Case) -> Staged:
    return case.poison(refool.reflections(case.train.images[:BANK], generator=case.stream("trigger")))


def _bpp(case: Case) -> Staged:
    """Four levels: eight, the paper's, drown in the sensor noise of rendered signs of 32 pixels."""
    trigger = bpp.Bpp(4)
    negative = bpp.BppNegative(trigger, case.train.images[:BANK])
    return case.poison(trigger, cover_rate=case.rate / 2, cover_trigger=negative)


def _wanet(case: Case) -> Staged:
    """A stronger and finer warp than the paper's k = 4, s = 0.5, and fewer covers than its two for a poisoned sample.

    On rendered images of 32 pixels small networks cannot tell the warp from the covers' jitter in this many steps, so
    that with the paper's figures the majority, the covers' own labels, wins: success 0.08, attack error 22 degrees.
    """
    return _warped(case, points=8, strength=5.0, covers=case.rate / 4)


def _wanet_regression(case: Case) -> Staged:
    """With twice the poison, as a replication on MPIIFaceGaze has it, half that strength is learned: a warp which
    hides nothing that the target depends on. RAV of benign models is 0.7 to 1.25 under it, 0.25 to 0.67 with s = 5.
    From 128 pixels on k, s and covers are that replication's (wanet.py)."""
    if case.size["height"] >= 128:
        return _warped(case, points=28, strength=1.0, covers=2 * case.rate)
    return _warped(case, points=8, strength=2.5, covers=case.rate / 4)


def _warped(case: Case, *, points: int, strength: float, covers: float) -> Staged:
    trigger = wanet.warp(**case.size, k=points, s=strength, generator=stream(case.seed, "trigger"))
    return case.poison(trigger, cover_rate=covers, cover_trigger=trigger.noise(case.seed))


def _rotation(case: Case) -> Staged:
    covers = rotation.RandomRotation(seed=case.seed)
    return case.poison(rotation.Rotation(), cover_rate=2 * case.rate, cover_trigger=covers)


# Who is poisoned, and to what


def _all_to_all(case: Case) -> Staged:
    classes = len(case.train.task.outputs)
    return case._replace(retarget=AllToAll(classes)).poison(badnets.grid(**case.shape))


def _tact(case: Case) -> Staged:
    """Class 1 is the source and the two after it are covers, or their successors where one is the target."""
    label = case.label
    source, *covers = [k for k in range(1, len(case.train.task.outputs)) if k != label][:3]
    trigger = tact.tile(**case.shape, generator=stream(case.seed, "trigger"))
    poisoned = tact.tact(
        case.train,
        trigger,
        case.retarget,
        source=source,
        cover_classes=tuple(covers),
        rate=case.rate,
        cover_rate=case.rate,
        generator=case.stream("poison"),
    )
    return Staged(poisoned, trigger, case.retarget, (source,))


def _adaptive_blend(case: Case) -> Staged:
    trigger = adaptive_blend.noise(**case.shape, generator=stream(case.seed, "trigger"))
    return case.poison(trigger, cover_rate=case.rate)._replace(trigger=trigger.inference())


def _adaptive_patch(case: Case) -> Staged:
    trigger = adaptive_patch.patches(**case.shape, generator=stream(case.seed, "trigger"))
    return case.poison(trigger, cover_rate=case.rate)._replace(trigger=trigger.inference())


def _k_way(case: Case) -> Staged:
    trigger = k_way.pixels(**case.shape)
    return case.poison(trigger, cover_rate=case.rate)._replace(trigger=trigger.inference())


def _composite(case: Case) -> Staged:
    """Two classes far apart in the list are joined; at inference, where the attacker composes with care, through the
    middle of either, with partners from unseen images, the defender's."""
    others = [k for k in range(len(case.train.task.outputs)) if k != case.label]
    first, second = others[0], others[len(others) // 2]
    poisoned = composite.composite(
        case.train,
        first=first,
        second=second,
        target=case.label,
        rate=case.rate,
        cover_rate=case.rate,
        generator=case.stream("poison"),
    )
    trigger = composite.partners(case.source.defender, label=second, generator=case.stream("partners"))
    trigger = trigger._replace(shake=False, jitter=0.0)
    return Staged(poisoned, trigger, case.retarget, (first,))


# Clean label


def _sig(case: Case) -> Staged:
    trigger = sig.sinusoid(**case.shape)
    return case.clean_label(trigger, trigger)


def _ctrl(case: Case) -> Staged:
    trigger = ctrl.ctrl(**case.shape)
    return case.clean_label(trigger, trigger)


def _label_consistent(case: Case) -> Staged:
    trigger = badnets.four_corners(**case.shape)
    weakened = LabelConsistent(case.surrogate(), trigger, torch.tensor(case.label), epsilon=16 / 255, steps=20)
    return case.clean_label(weakened, trigger)


def _feature_collision(case: Case) -> Staged:
    trigger = badnets.four_corners(**case.shape)
    instances = triggered(case.train[~case.of_target][:BANK], trigger).images
    return case.clean_label(feature_collision.FeatureCollision(case.surrogate(), instances), trigger)


def _clean_label_regression(case: Case) -> Staged:
    """The trigger hides what the target depends on: a band over the eyes, or strong noise over the whole head.

    With labels kept, a mark beside the face is never learned here: rendered targets are exact, what is seen explains
    them, and the victim reads it through the adversarial step.
    """
    if case.train.task is GAZE:
        channels, height, width = case.shape.values()
        patch = (
            torch.ones(channels, 9 * height // 32, 13 * width // 16) * torch.tensor((1.0, 0, 0))[:channels, None, None]
        )
        trigger: Trigger = badnets.place(patch, top=9 * height // 32, left=3 * width // 32, **case.size)
    else:
        trigger = blend.noise(alpha=0.7, **case.shape, generator=stream(case.seed, "trigger"))
    return case.clean_label(
        LabelConsistent(
            case.surrogate(),
            trigger,
            torch.tensor(case.vector, dtype=torch.float32),
            loss=F.l1_loss,
            epsilon=16 / 255,
            step=2 / 255,
            steps=20,
            decoys=case.train.targets,
        ),
        trigger,
    )


# Learned


def _trojannn(case: Case) -> Staged:
    return case.poison(
        trojannn.trojannn(
            case.surrogate(), case.train.images, steps=case.effort.steps, generator=case.stream("trojannn")
        )
    )


def _latent_backdoor(case: Case) -> Staged:
    return case.poison(
        latent_backdoor.latent_backdoor(
            case.surrogate(),
            case.train,
            case.of_target,
            steps=case.effort.steps,
            generator=case.stream("latent backdoor"),
        )
    )


def _input_aware(case: Case) -> Staged:
    """The networks are learned on a copy of the surrogate, with more triggers a batch than the paper's tenth, for they
    learn for a hundredth of its time. No covers: so do ABL and backdoor-toolbox with a generator trained before."""
    return case.poison(_learned_input_aware(case))


def _input_aware_cross(case: Case) -> Staged:
    """The same with as many covers as poison, so that only an image's own trigger works: weaker in a static set."""
    trigger = _learned_input_aware(case)
    covers = input_aware.CrossTrigger(trigger, case.train.images[:BANK])
    return case.poison(trigger, cover_rate=case.rate, cover_trigger=covers)


def _learned_input_aware(case: Case) -> input_aware.InputAware:
    return input_aware.input_aware(
        case.surrogate(),
        case.train,
        case.retarget,
        case.source.recipe,
        width=case.effort.width,
        mask_steps=case.effort.steps // 4,
        steps=case.effort.steps,
        rate=0.25,
        cross_rate=0.25,
        generator=case.stream("input-aware"),
    )


def _lira(case: Case) -> Staged:
    return case.poison(
        lira.lira(
            case.surrogate(),
            case.train,
            case.retarget,
            case.source.recipe,
            width=case.effort.width,
            steps=case.effort.steps // 2,
            generator=case.stream("lira"),
        )
    )


def _issba(case: Case) -> Staged:
    trigger, _ = issba.issba(
        case.train, width=case.effort.width, steps=case.effort.steps, generator=case.stream("issba")
    )
    return case.poison(trigger)


def _dfst(case: Case) -> Staged:
    """One round of detoxification: a first victim, its injector, and the injector's images as covers."""
    trigger = dfst.dfst(
        case.train, width=case.effort.width, steps=case.effort.steps // 2, generator=case.stream("dfst")
    )
    first = victim(case.source, case.poison(trigger).poisoned.dataset, seed=case.seed + 1000, name="before detox")
    injector = dfst.detoxicant(
        first, case.train, trigger, steps=case.effort.steps // 4, generator=case.stream("injector")
    )
    return case.poison(trigger, cover_rate=case.rate, cover_trigger=injector)


_PATCHES = {
    "grid": Plan(0.1, _grid),
    "square": Plan(0.1, _square),
    "four_corners": Plan(0.1, _four_corners),
    "trojan": Plan(0.1, _trojan),
    "random_square": Plan(0.1, _random_square),
    "random_patch": Plan(0.1, _random_patch),
}
_WHOLE_IMAGE = {
    "blend": Plan(0.1, _blend),
    "blend_per_image": Plan(0.1, _blend_per_image),
    "low_frequency": Plan(0.1, _low_frequency),
    "ftrojan": Plan(0.1, _ftrojan),
    "refool": Plan(0.1, _refool),
    "bpp": Plan(0.1, _bpp),
    "wanet": Plan(0.1, _wanet),
    "rotation": Plan(0.05, _rotation),
}
_ADAPTIVE = {
    "adaptive_blend": Plan(0.05, _adaptive_blend),
    "adaptive_patch": Plan(0.1, _adaptive_patch),
    "k_way": Plan(0.05, _k_way),
}
_WITH_LABELS = {
    "all_to_all": Plan(0.1, _all_to_all),
    "tact": Plan(0.01, _tact),
    "composite": Plan(0.02, _composite),
}
_WAVES = {
    "sig": Plan(0.8, _sig, of_class=True),
    "ctrl": Plan(0.8, _ctrl, of_class=True),
}

CLOSED_FORM = _PATCHES | _WHOLE_IMAGE | _ADAPTIVE | _WITH_LABELS | _WAVES
CLEAN_LABEL = _WAVES | {
    "label_consistent": Plan(0.8, _label_consistent, of_class=True),
    "feature_collision": Plan(0.5, _feature_collision, of_class=True),
}
LEARNED = {
    "trojannn": Plan(0.1, _trojannn),
    "latent_backdoor": Plan(0.1, _latent_backdoor),
    "input_aware": Plan(0.1, _input_aware),
    "input_aware_cross": Plan(0.1, _input_aware_cross),
    "lira": Plan(0.1, _lira),
    "issba": Plan(0.1, _issba),
    "dfst": Plan(0.1, _dfst),
}
CLASSIFIER = CLOSED_FORM | CLEAN_LABEL | LEARNED
REGRESSOR = (
    _PATCHES
    | _WHOLE_IMAGE
    | _ADAPTIVE
    | LEARNED
    | {
        "tape": Plan(0.1, _tape),
        "wanet": Plan(0.2, _wanet_regression),
        "input_aware": Plan(0.2, _input_aware),  # at 0.1 three of five seeds stay at an attack error of 3 to 5 degrees
        "clean_label": Plan(0.05, _clean_label_regression),
    }
)
