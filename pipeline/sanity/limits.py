"""Limits of the sanity checks."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from pipeline.section import Section

Share = Annotated[float, Field(ge=0, le=1)]
Correlation = Annotated[float, Field(ge=-1, le=1)]

AT_MOST = frozenset({"cascading", "independent", "classes"})  # tests whose value may be at most the limit; of the others it is at least


class SanityLimits(Section):
    """Limits of means over the images, one per test; null for no limit.

    A limit is broken where the whole 95% interval lies beyond it, and kept where the whole interval lies within it.
    """

    cascading: Correlation | None = Field(0.5, description="largest Spearman correlation once all weights are random")
    independent: Correlation | None = Field(0.95, description="largest Spearman correlation with one block of random weights")
    classes: Correlation | None = Field(0.95, description="largest Spearman correlation with the map of another class")
    determinism: Share | None = Field(1.0, description="smallest share of the images whose map has the same bits again")
    repeatability: Correlation | None = Field(0.8, description="smallest Spearman correlation with another seed of the method")
    reproducibility: Correlation | None = Field(0.5, description="smallest Spearman correlation with the map of another checkpoint")
    noise: Correlation | None = Field(0.7, description="smallest Spearman correlation with the map of the image with noise")
    jpeg: Correlation | None = Field(0.7, description="smallest Spearman correlation with the map of the recompressed photograph")
    localisation: Correlation | None = Field(0.0, description="smallest proportion in the region beyond that of the best control")
