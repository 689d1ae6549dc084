"""Determinism and repeatability: the same map again, and with other draws."""

from __future__ import annotations

from collections.abc import Iterator

from hdm_core.sanity.subject import Subject, Variant

DETERMINISM, REPEATABILITY = "determinism", "repeatability"


def repeats(subject: Subject) -> Iterator[Variant]:
    """Yield the subject as it is, and with another seed of the method's draws.

    Methods that draw nothing have the same map with every seed.
    """
    yield subject.variant(DETERMINISM, "same seed")
    yield subject.variant(REPEATABILITY, "another seed", seed=1)
