"""The examples in the docstrings run, offline, and print what they say."""

from __future__ import annotations

import doctest

import pytest

from hdm_core import Classifier, evaluate, explain


@pytest.mark.parametrize("documented", [explain, evaluate, Classifier], ids=lambda documented: documented.__name__)
def test_the_example_runs(documented: object) -> None:
    (example, *others) = [found for found in doctest.DocTestFinder(recurse=False).find(documented) if found.examples]
    assert not others
    assert doctest.DocTestRunner(verbose=False).run(example) == (0, len(example.examples))
