"""Detectors that compare the training samples with each other, and so score all of them. See lab/detectors.py."""

import torch

from drmlib.detection import agpd, scan, spectre
from drmlib.detection.activation_clustering import RELATIVE_SIZE, activation_clustering
from drmlib.detection.spectral_signatures import highest, spectral_signatures
from drmlib.lab.inspection import Detector, Findings, Inspection, every


def _spectral_signatures(given: Inspection) -> Findings:
    scores = spectral_signatures(*given.everything)
    return every(scores, highest(scores, given.train.targets, oracle_poison_count=given.oracle_poison_count))


def _activation_clustering(given: Inspection) -> Findings:
    scores = activation_clustering(*given.everything, generator=given.stream("activation clustering"))
    return every(scores, scores > 1 - RELATIVE_SIZE)


def _scan(given: Inspection) -> Findings:
    scores = scan.scan(*given.everything, given.clean.images, given.clean.targets, generator=given.stream("scan"))
    return every(scores, scores > scan.THRESHOLD)


def _spectre(given: Inspection) -> Findings:
    """Flagged: the 1.5 x (number of poisoned samples) highest of the label whose mean score is highest."""
    scores, labels = (
        spectre.spectre(*given.everything, oracle_poison_count=given.oracle_poison_count),
        given.train.targets,
    )
    means = torch.stack([scores[labels == label].mean() for label in labels.unique()])
    suspected = labels == labels.unique()[means.argmax()]
    removed = highest(scores, labels, oracle_poison_count=given.oracle_poison_count)
    return every(scores, removed & suspected)


def _agpd(given: Inspection) -> Findings:
    """Flagged: nearer to the suspects' gradient, in the labels that stand out."""
    found, labels = agpd.dispersion(*given.everything, given.clean.images, given.clean.targets), given.train.targets
    outstanding = labels.unique()[found.anomaly > agpd.THRESHOLD]
    return every(found.closeness, (found.closeness > 0.5) & torch.isin(labels, outstanding))


BY_SET: dict[str, Detector] = {
    "spectral signatures": _spectral_signatures,
    "activation clustering": _activation_clustering,
    "SCAn": _scan,
    "SPECTRE": _spectre,
    "AGPD": _agpd,
}
