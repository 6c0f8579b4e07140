"""Detectors that train on the suspicious set and ask the network that comes of it. See lab/detectors.py.

They need Inspection.training, score all samples, and take about as long as training a victim does.
"""

import torch

from drmlib.detection.abl_isolation import abl_isolation
from drmlib.detection.confusion_training import confusion
from drmlib.lab.inspection import Detector, Findings, Inspection, Training, every
from drmlib.training.abl import small_recipes
from drmlib.training.isolation import lowest

ISOLATED = 0.01  # the share of the samples that ABL takes for poisoned


def _confusion_training(given: Inspection) -> Findings:
    """Flagged: what survives confusion in the classes that are two populations. All clean samples are reserved."""
    training = _training(given)
    start = training.network if training.confusion.rounds[0].pretrain_epochs else given.model
    found = confusion(
        given.model,
        given.train,
        given.clean,
        start,
        settings=training.confusion,
        generator=given.stream("confusion training"),
    )
    return every(found.scores, found.removed)


def _abl_isolation(given: Inspection) -> Findings:
    """Flagged: the 1 % of the samples that have the lowest loss after a few epochs."""
    training = _training(given)
    scores = abl_isolation(
        training.network,
        given.train.images,
        given.train.targets,
        small_recipes(training.recipe).isolation,
        generator=given.stream("ABL isolation"),
    )
    flagged = torch.zeros_like(scores, dtype=torch.bool)
    flagged[lowest(-scores, ISOLATED)] = True
    return every(scores, flagged)


def _training(given: Inspection) -> Training:
    if given.training is None:
        raise ValueError("expected an Inspection with `training` for a detector that trains, got None; give a Training")
    return given.training


BY_TRAINING: dict[str, Detector] = {"confusion training": _confusion_training, "ABL isolation": _abl_isolation}
