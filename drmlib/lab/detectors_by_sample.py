"""Detectors that judge each sample by itself; those that need many passes for it score Inspection.sample only.

See lab/detectors.py.
"""

import torch
from torch import Tensor

from drmlib.detection import beatrix, cognitive_distillation, frequency, strip
from drmlib.detection.sentinet import sentinet
from drmlib.lab.inspection import Detector, Findings, Inspection, every


def _beatrix(given: Inspection) -> Findings:
    """The threshold is the 95th percentile of clean samples that the band has not seen, by two folds."""
    half, clean = len(given.clean) // 2, given.clean.images
    held_out = torch.cat(
        [
            beatrix.beatrix(given.model, clean[half:], clean[:half]),
            beatrix.beatrix(given.model, clean[:half], clean[half:]),
        ]
    )
    scores = beatrix.beatrix(given.model, given.suspects, clean)
    return Findings(given.sample, scores, scores > held_out.quantile(0.95))


def _strip(given: Inspection) -> Findings:
    count = given.effort.overlays
    overlays, held_out = given.clean.images[:count], given.clean.images[count : count + 2 * given.effort.held_out]

    def scored(images: Tensor) -> Tensor:
        return strip.strip(given.model, images, overlays, count=count, generator=given.stream("strip"))

    scores = scored(given.suspects)
    return Findings(given.sample, scores, scores > strip.threshold(scored(held_out)))


def _sentinet(given: Inspection) -> Findings:
    """Flagged: above the curve of clean samples."""
    reference = given.clean.images[: given.effort.overlays + given.effort.held_out]
    options = {"count": given.effort.overlays, "generator": given.stream("sentinet")}
    scores = sentinet(given.model, given.suspects, reference, **options)  # type: ignore[arg-type]
    return Findings(given.sample, scores, scores > 0)


def _cognitive_distillation(given: Inspection) -> Findings:
    both = torch.cat([given.suspects, given.clean.images[: given.effort.held_out]])
    scores = cognitive_distillation.cognitive_distillation(
        given.model, both, steps=given.effort.steps, generator=given.stream("cognitive distillation")
    )
    scores, clean = scores.split([len(given.sample), len(both) - len(given.sample)])
    return Findings(given.sample, scores, scores > cognitive_distillation.threshold(clean))


def _frequency(given: Inspection) -> Findings:
    scores = frequency.frequency(given.network, given.train.images)
    return every(scores, scores > 0)


BY_SAMPLE: dict[str, Detector] = {
    "Beatrix": _beatrix,
    "STRIP": _strip,
    "SentiNet": _sentinet,
    "cognitive distillation": _cognitive_distillation,
    "frequency": _frequency,
}
