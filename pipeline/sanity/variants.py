"""Tests of a sanity check as variants of its subject, and those left out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from hdm_core import Classifier
from hdm_core.sanity import (
    CASCADING,
    CLASSES,
    DETERMINISM,
    INDEPENDENT,
    JPEG,
    NOISE,
    REPEATABILITY,
    REPRODUCIBILITY,
    Block,
    LeftOutError,
    Variant,
    as_jpeg,
    cascading,
    find_blocks,
    independent,
    noisy,
    other_checkpoint,
    other_classes,
    recompressed,
    repeats,
)
from pipeline.sanity.data import SanityData, prepared


@dataclass(frozen=True)
class LeftOut:
    """A test that does not apply to the classifier or the images, with the reason."""

    test: str
    reason: str


def list_variants(
    data: SanityData, against: Classifier | None, blocks: int, seed: int, batch: int
) -> tuple[int, Iterator[Variant | LeftOut]]:
    """Return the largest number of variants, and the variants one after the other.

    They are made when they are asked for, so that one network with random weights is in memory at a time.

    Args:
        against: another checkpoint; None for none.
        blocks: largest number of blocks of layers.
    """
    subject = data.subject
    reason, found = "", list[Block]()
    try:
        found = find_blocks(subject.classifier, subject.images[:1], blocks)
    except LeftOutError as error:
        reason = str(error)

    def randomisation(make: Callable[..., Iterator[Variant]]) -> Iterator[Variant]:
        if reason:
            raise LeftOutError(reason)
        yield from make(subject, found, seed)

    def checkpoint() -> Iterator[Variant]:
        if against is None:
            raise LeftOutError("no other checkpoint was given: --against")
        yield other_checkpoint(subject, data.logits, against, prepared(against, data.photographs), batch)

    def jpeg() -> Iterator[Variant]:
        photographs = [as_jpeg(each) for each in data.photographs]
        usable = [each for each in photographs if each is not None]
        if len(usable) < len(photographs):
            raise LeftOutError("the images are not of 8 bits in grey or RGB, which JPEG stores")
        yield recompressed(subject, data.logits, prepared(subject.classifier, usable), batch)

    tests: list[tuple[tuple[str, ...], Callable[[], Iterable[Variant]]]] = [
        ((CASCADING,), lambda: randomisation(cascading)),
        ((INDEPENDENT,), lambda: randomisation(independent)),
        ((CLASSES,), lambda: other_classes(subject, data.logits, seed)),
        ((DETERMINISM, REPEATABILITY), lambda: repeats(subject)),
        ((REPRODUCIBILITY,), checkpoint),
        ((NOISE,), lambda: noisy(subject, data.logits, seed, batch)),
        ((JPEG,), jpeg),
    ]
    return 2 * len(found) + 9, _guarded(tests)


def _guarded(tests: Iterable[tuple[tuple[str, ...], Callable[[], Iterable[Variant]]]]) -> Iterator[Variant | LeftOut]:
    for ids, make in tests:
        try:
            yield from make()
        except LeftOutError as error:
            yield from (LeftOut(test, str(error)) for test in ids)
