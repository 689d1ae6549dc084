"""HTML page of a sanity check: report/sanity.html."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hdm_core import METHODS, controls_last, is_control, method_title
from pipeline.report.heatmap import legend
from pipeline.report.templates import render
from pipeline.sanity.limits import AT_MOST, SanityLimits
from pipeline.sanity.run import SanityResult
from pipeline.sanity.summary import TITLES, chance_of, summarise


@dataclass(frozen=True)
class ExampleMap:
    """Map of one image at one stage; `path` is None without a map."""

    stage: str
    path: str | None
    status: str


@dataclass(frozen=True)
class ExampleImage:
    """Maps of one image, by the title of the method."""

    image_id: str
    photograph: str
    methods: Mapping[str, Sequence[ExampleMap]]


def render_page(result: SanityResult, examples: Sequence[ExampleImage], figure: str | None) -> bytes:
    """Render the page as HTML.

    Args:
        figure: place of the figure of cascading randomisation; None for none.
    """
    methods = controls_last(result.config.methods)
    fields = SanityLimits.model_fields
    return render(
        "sanity.html",
        name=result.config.name,
        classifier=result.classifier,
        against=result.against,
        images=len(result.data.samples),
        skipped=list(result.data.skipped),
        failed=result.failed,
        titles=TITLES,
        method_titles={method: method_title(method) for method in methods},
        sources={method: METHODS[method].source for method in methods},
        controls=[method for method in methods if is_control(method)],
        summaries={method: summarise(result.rows, method) for method in methods},
        chance={method: chance_of(result.rows, method) for method in methods},
        rows={method: [row for row in result.rows if row.method == method and row.test != "chance"] for method in methods},
        limits={
            test: (getattr(result.limits, test), "at most" if test in AT_MOST else "at least", fields[test].description) for test in TITLES
        },
        examples=examples,
        figure=figure,
        legend=legend(),
    )
