"""Sanity checks of saliency methods on a classifier and its images."""

from hdm_core.sanity.answers import answers
from hdm_core.sanity.blocks import Block, find_blocks
from hdm_core.sanity.checkpoint import REPRODUCIBILITY, other_checkpoint
from hdm_core.sanity.classes import CLASSES, other_classes
from hdm_core.sanity.localisation import LOCALISATION, advantages
from hdm_core.sanity.maps import Comparison, Compute, Maps, compare, compare_with_next, explain_variant
from hdm_core.sanity.randomisation import CASCADING, INDEPENDENT, cascading, independent, randomised
from hdm_core.sanity.repeats import DETERMINISM, REPEATABILITY, repeats
from hdm_core.sanity.stability import JPEG, NOISE, as_jpeg, noisy, recompressed
from hdm_core.sanity.subject import LeftOutError, Subject, Variant

TESTS = (CASCADING, INDEPENDENT, CLASSES, DETERMINISM, REPEATABILITY, REPRODUCIBILITY, NOISE, JPEG, LOCALISATION)

__all__ = [
    "CASCADING",
    "CLASSES",
    "DETERMINISM",
    "INDEPENDENT",
    "JPEG",
    "LOCALISATION",
    "NOISE",
    "REPEATABILITY",
    "REPRODUCIBILITY",
    "TESTS",
    "Block",
    "Comparison",
    "Compute",
    "LeftOutError",
    "Maps",
    "Subject",
    "Variant",
    "advantages",
    "answers",
    "as_jpeg",
    "cascading",
    "compare",
    "compare_with_next",
    "explain_variant",
    "find_blocks",
    "independent",
    "noisy",
    "other_checkpoint",
    "other_classes",
    "randomised",
    "recompressed",
    "repeats",
]
