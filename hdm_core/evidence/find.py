"""`find_evidence`: the sets of pixels of an image that suffice for its class."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from hdm_core.batch_limit import BatchLimit
from hdm_core.checks.require import require
from hdm_core.classifier import Classifier, as_classifier
from hdm_core.device import Precision, default_precision
from hdm_core.evidence.result import Evidence
from hdm_core.evidence.search import largest_number_of_trials
from hdm_core.evidence.settings import EvidenceSettings
from hdm_core.evidence.stages import EvidenceSearch
from hdm_core.explain import images_on_device, resolve_batch_limit
from hdm_core.masking.dynamic import dm_passes
from hdm_core.masking.pass_counter import PassCounter, Progress
from hdm_core.methods.base import ExplainJob
from hdm_core.methods.dm import DM
from hdm_core.methods.start import starting_passes
from hdm_core.network.logits import class_logits, require_logits, resolve_targets
from hdm_core.targets import Targets, contrasting, one_target, resolve_contrasts, target_numbers


def find_evidence(
    classifier: Classifier | nn.Module,
    images: Tensor,
    targets: Targets = None,
    settings: EvidenceSettings | None = None,
    *,
    target: Targets = None,
    contrast: Targets = None,
    batch: int | BatchLimit | None = None,
    precision: Precision | None = None,
    progress: Progress | None = None,
    cuda_graphs: bool = True,
) -> Evidence:
    """Find the disjoint sets of pixels of every image that each suffice for its class.

    By stages, as in HDM: DM ranks the pixels that are left; a small set of them that keeps the class, shown alone on the baseline, is a
    piece of evidence; it and a margin are replaced by the baseline, and the next stage starts, until what is left no longer keeps the
    class. A set keeps the class if its score is at least `kept` of the image's. The sets are hard: a pixel is shown or not. What is found
    for an image does not depend on the others in its batch.

    The score is the probability, as in the definition of minimal sufficient explanations of structured attention graphs (Shitole et al.,
    NeurIPS 2021): it is what the network answers. The log-odds do not saturate where the probability is near 1, and find larger sets there.

    Args:
        classifier: a `Classifier`, or a plain network that maps images to logits.
        images: (B, C, H, W) as the classifier's preprocess gives them.
        targets: the class of each image, as for `explain`; None for the class that the network predicts.
        settings: the defaults if None.
        target: another name of `targets`.
        contrast: a class that the target is compared with, as for `explain`.
        batch: upper limit of (masked) images per forward pass, as a number, or a limit that is shared with other calls; None leaves it to
            the device.
        precision: of the network while DM trains masks; None leaves it to the device. Sets are tried in float32.
        progress: called with the number of passes just done.
        cuda_graphs: as for `explain`.

    Raises:
        ValueError: as `explain`.
        TypeError: if the network does not return (B, classes).

    Example:
        >>> import torch
        >>> from hdm_core import find_evidence
        >>> from hdm_core.evidence import EvidenceSettings
        >>> network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
        >>> settings = EvidenceSettings(dm={"sizes": [4], "max_size": 8, "steps": 2, "ensemble": []})
        >>> evidence = find_evidence(network, torch.rand(2, 3, 16, 16), settings=settings)
        >>> len(evidence.pieces), len(evidence.status)
        (2, 2)
    """
    classifier, settings = as_classifier(classifier), settings or EvidenceSettings()
    given = one_target(target, targets)
    images = images_on_device(classifier, images)
    limit = resolve_batch_limit(classifier, batch, "evidence")
    precision = precision or default_precision(classifier.device)
    limit.run(lambda size: require(classifier, images, size, DM.is_concerned))

    def attempt(_: int) -> Evidence:
        return _find(classifier, images, given, contrast, settings, limit, precision, PassCounter(progress), cuda_graphs)

    return limit.run(attempt)


def evidence_passes(settings: EvidenceSettings, classifier: Classifier, image: Tensor) -> int:
    """Return the largest number of passes per image of `find_evidence`.

    An image needs as many only if it has `max_pieces` pieces, and all cells of each are tried one by one.

    Args:
        image: (1, C, H, W), of the kind and size that will be explained; its content does not matter.

    Raises:
        ValueError: if the settings do not fit the image's size.
    """
    blocks = settings.blocks
    masks = dm_passes(blocks, *image.shape[-2:]) + starting_passes(blocks, classifier, image)
    # Of each piece, two passes more: what is left after it, and its necessity.
    return settings.max_pieces * (masks + largest_number_of_trials(settings) + 2)


def _find(
    classifier: Classifier,
    images: Tensor,
    targets: Targets,
    contrast: Targets,
    settings: EvidenceSettings,
    limit: BatchLimit,
    precision: Precision,
    passes: PassCounter,
    cuda_graphs: bool,
) -> Evidence:
    """Find the evidence of images that are on the device."""
    with torch.inference_mode(False), classifier.frozen() as network, torch.enable_grad():
        with torch.no_grad():
            logits = torch.cat([class_logits(network, part) for part in torch.split(images, limit.size)])
        problem_type = classifier.problem_type
        classes = resolve_targets(require_logits(logits, problem_type), target_numbers(targets, classifier), problem_type)
        job, contrasts = ExplainJob(classifier, images, classes, limit.size, passes, precision, None, limit, cuda_graphs), None
        if contrast is not None:
            contrasts = resolve_contrasts(classifier, logits, classes, contrast)
            of_pairs, pairs = contrasting(classifier, classes, contrasts)
            job = replace(job, classifier=of_pairs, targets=pairs)
        with job.classifier.folded(images[:1], precision) as trained, job.classifier.folded(images[:1]) as tried:
            found = EvidenceSearch(job, trained, tried, settings).run()
    return replace(found, targets=classes, contrasts=contrasts)
