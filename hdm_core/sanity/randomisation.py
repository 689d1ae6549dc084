"""Cascading and independent randomisation of weights."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

from hdm_core.classifier import Classifier
from hdm_core.device_errors import is_of_device
from hdm_core.messages import typed_line
from hdm_core.sanity.answers import answers
from hdm_core.sanity.blocks import Block
from hdm_core.sanity.calibration import calibrate
from hdm_core.sanity.reset import reset_layer
from hdm_core.sanity.subject import LeftOutError, Subject, Variant

CASCADING, INDEPENDENT = "cascading", "independent"


def cascading(subject: Subject, blocks: Sequence[Block], seed: int) -> Iterator[Variant]:
    """Yield the subject with the weights of more and more blocks randomised.

    Adebayo et al., Sanity Checks for Saliency Maps, NeurIPS 2018, Section 3: from the logits down, until no trained weight is left.

    Args:
        blocks: the one nearest to the logits first, as `find_blocks` returns.

    Raises:
        LeftOutError: if the network cannot be copied, or its logits do not depend on the weights that it shows.
    """
    whole = randomised(subject.classifier, blocks, seed, subject.images)
    _require_change(subject, whole)
    for count, block in enumerate(blocks, 1):
        classifier = whole if count == len(blocks) else randomised(subject.classifier, blocks[:count], seed, subject.images)
        yield subject.variant(CASCADING, _stage(count, blocks, block), classifier=classifier, has_limit=classifier is whole)


def independent(subject: Subject, blocks: Sequence[Block], seed: int) -> Iterator[Variant]:
    """Yield the subject with the weights of one block after the other randomised.

    Adebayo et al., Section 3: all other blocks keep their weights. A network of one block has no such test.

    Args:
        blocks: as for `cascading`.

    Raises:
        LeftOutError: if there is one block only, or the network cannot be copied.
    """
    if len(blocks) < 2:
        raise LeftOutError("there is one block of layers, which cascading randomisation changes")
    for count, block in enumerate(blocks, 1):
        classifier = randomised(subject.classifier, [block], seed, subject.images)
        yield subject.variant(INDEPENDENT, _stage(count, blocks, block), classifier=classifier)


def randomised(classifier: Classifier, blocks: Iterable[Block], seed: int, images: Tensor) -> Classifier:
    """Return a copy of a classifier with new weights in some of its blocks.

    The weights of a layer depend on the seed and its name alone: a layer has the same ones in every stage. Batch normalisation in these
    blocks is calibrated on the images, see `calibrate`. The classifier is not changed.

    Args:
        images: (B, C, H, W).

    Raises:
        LeftOutError: if its network cannot be copied, or the copy shares weights with it.
    """
    other = copy.copy(classifier)
    try:
        other.module = copy.deepcopy(classifier.module)
    except Exception as error:  # a user's network may hold what cannot be copied
        if is_of_device(error):
            raise
        raise LeftOutError(f"the network cannot be copied ({typed_line(error, 160)})") from None
    own = {tensor.data_ptr() for tensor in classifier.module.parameters() if tensor.numel()}
    if any(tensor.data_ptr() in own for tensor in other.module.parameters() if tensor.numel()):
        raise LeftOutError("a copy of the network shares its weights")
    layers = dict(other.network.named_modules())
    changed = [name for block in blocks for name in block.layers]
    for name in changed:
        reset_layer(layers[name], _seed(seed, name))
    calibrate(other, [layers[name] for name in changed], images)
    return other


def _seed(seed: int, name: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed} {name}".encode()).digest()[:8], "big") >> 1  # a seed has 63 bits


def _stage(count: int, blocks: Sequence[Block], block: Block) -> str:
    return f"{count} of {len(blocks)}: {block.name}"


def _require_change(subject: Subject, whole: Classifier) -> None:
    """Refuse a network that computes with other weights than those that it shows."""
    before, after = (answers(classifier, subject.images[:1], 1) for classifier in (subject.classifier, whole))
    if torch.equal(before, after):
        raise LeftOutError("the network's logits do not change with its weights")
