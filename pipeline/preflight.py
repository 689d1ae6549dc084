"""Check of a run's classifier on a few of its photographs, before the run."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from hdm_core import CheckResult, Classifier, check
from hdm_core.free_memory import available_memory, resident_memory
from hdm_core.memory import forward_bytes
from hdm_core.settings import Settings
from pipeline.classifiers.load import own_preparation, preprocess_of
from pipeline.datasets import Sample
from pipeline.datasets.batches import LoadedSample, read_batches
from pipeline.errors import InputError, one_line
from pipeline.storage.retry import StorageTimeoutError

_log = logging.getLogger(__name__)

_PHOTOGRAPHS = 4
_MIB = 2**20
# Free bytes, and more per pixel of an image, with which any network runs: VGG-16 takes about 500 per pixel at once.
_PLENTY, _MAX_PER_PIXEL = 4 * 2**30, 6_000


def preflight(classifier: Classifier, photographs: Tensor | None, methods: Mapping[str, Settings]) -> CheckResult:
    """Check a classifier for the methods of a run; log what is unusual about it.

    Args:
        photographs: (B, C, H, W), as the classifier gets them; noise alone if None.

    Raises:
        InputError: if results of the run would be wrong.
    """
    result = check(classifier, photographs, methods)
    if result.refused:
        # The message of a shorter list of methods is that list itself: it can be copied into the configuration.
        left = f"; these can run: methods: [{', '.join(result.usable)}]" if result.usable else ""
        raise InputError(f"classifier: {classifier.name}: {result.refused}{left}")
    for finding in result.findings:
        if finding.verdict != "ok":
            level = logging.WARNING if finding.verdict == "doubtful" else logging.INFO
            _log.log(level, "classifier: %s: %s", finding.subject, finding)
    return result


def require_memory(classifier: Classifier, size: tuple[int, int], own_process: bool) -> None:
    """Refuse a run where one image does not fit into the machine's free memory.

    The tensors of a forward pass of one image are counted without being made, so that this process is not killed for them.

    Args:
        size: height and width of the network's input in pixels.
        own_process: a worker is a process of its own on this machine, which holds at least what this one does.

    Raises:
        InputError: if less is free than a worker needs at least.
    """
    free = available_memory()
    if free is None or free > _PLENTY + _MAX_PER_PIXEL * size[0] * size[1]:
        return
    tensors = forward_bytes(classifier, size)
    if tensors is None:
        return
    need = tensors + (resident_memory() if own_process else 0)
    if need > free:
        raise InputError(
            f"memory: a worker needs at least {need / _MIB:,.0f} MiB for one image of {size[0]} x {size[1]}, and {free / _MIB:,.0f} MiB "
            "are free on this machine; end other programs, or make images smaller (classifier.resize and classifier.crop)"
        )


def read_photographs(classifier: Classifier, samples: Sequence[Sample], storage: Mapping[str, Any], timeout: float = 10.0) -> Tensor | None:
    """Read a few photographs of a dataset, evenly spaced, as the classifier gets them.

    Args:
        timeout: seconds for which requests to an object store are retried.

    Returns:
        (B, C, H, W); None if none of them can be read.
    """
    count = min(_PHOTOGRAPHS, len(samples))
    chosen = [samples[number * len(samples) // count] for number in range(count)]
    batches = read_batches(chosen, storage, preprocess_of(classifier), len(chosen), timeout=timeout, prepare=own_preparation(classifier))
    try:
        items = [item for batch in batches for item in batch.items]
    except StorageTimeoutError as error:
        _log.warning("no photograph can be read to check the classifier with (%s); noise is used", one_line(error))
        return None
    images = [item.image for item in items if isinstance(item, LoadedSample)]
    if images:
        return torch.stack(images).to(classifier.device, classifier.dtype or torch.float32)
    errors = [item.error for item in items if not isinstance(item, LoadedSample)]
    _log.warning("none of %d photographs can be read to check the classifier with (%s); noise is used", len(items), errors[0])
    return None
