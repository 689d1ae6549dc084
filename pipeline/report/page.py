"""HTML report of a run: report/index.html with its images."""

from __future__ import annotations

import pyarrow.compute as pc

from pipeline.report.classes import draw_classes
from pipeline.report.differences import describe_differences
from pipeline.report.figures import draw_figures
from pipeline.report.gallery import draw_gallery
from pipeline.report.heatmap import legend
from pipeline.report.signed import add_signed
from pipeline.report.summary import body, facts, head, problems, settings, without_contrast
from pipeline.report.templates import render
from pipeline.runs import RunStore
from pipeline.runs.measured import measured_settings
from pipeline.runs.records import top_rank
from pipeline.tables.aggregate import TITLES, aggregate, number_columns, of_first_baseline, remarks
from pipeline.tables.baselines import compare_baselines
from pipeline.tables.controls import compare_with_controls, unbeaten_controls

# Link to the comparison with another run, which may be made after the page.
_LINK = '<p class="small"><a href="drift.html">Comparison with another run</a></p>'
_LINK_PLACEHOLDER = "<!-- drift -->"


# Columns of the records that the page is made of, beside those of the tables; the gallery reads whole records of what it shows.
_COLUMNS = ("image_id", "error", "seconds", "target", "target_name", "probability")


def write_report(store: RunStore, limit: int = 24) -> str:
    """Write the page of the committed shards and its images, and return its URL.

    They are report/index.html and report/images/. The run is aggregated again, so that numbers and images are of the same shards.
    The same run gives the same bytes.

    Args:
        limit: maximum number of images shown, spread evenly over the rows.
    """
    info, every_baseline = store.metadata(), aggregate(store)  # before the records are read: it has its own while it works
    records = store.records(columns=_columns(store))
    table = of_first_baseline(every_baseline)
    metrics = measured_settings(store.storage, info)
    listed, problem_count = problems(records)
    explained = top_rank(records)
    compared = compare_with_controls(explained)
    gallery = add_signed(store, explained, draw_gallery(store, records, store.images(), limit))
    page = render(
        "index.html",
        name=info["name"],
        url=store.url,
        local=store.storage.local,
        facts=facts(info),
        settings=settings(info),
        done=pc.count_distinct(records["row"]).as_py(),
        total=info["images"],
        head=head(table),
        body=body(table, explained, info["passes_per_image"]),
        compared=len(compared),
        compared_images=sorted({each.n for each in compared}),
        unbeaten=unbeaten_controls(compared),
        differences=describe_differences(store, explained),
        baseline=None if metrics is None else metrics.baseline,
        remarks=remarks(table),
        by_baseline=compare_baselines(every_baseline),
        titles=TITLES,
        without_contrast=without_contrast(table),
        problems=listed,
        problem_count=problem_count,
        gallery=gallery,
        figures=draw_figures(store, gallery),
        classes=draw_classes(store, explained),
        limit=limit,
        legend=legend(),
        method=info["config"]["methods"][0],
        drift_link=_LINK if store.storage.exists("report/drift.html") else _LINK_PLACEHOLDER,
    )
    store.storage.write("report/index.html", page)
    return store.storage.url("report/index.html")


def _columns(store: RunStore) -> list[str]:
    return list(dict.fromkeys([*number_columns(store), *_COLUMNS]))


def link_drift(store: RunStore) -> None:
    """Add the link to report/drift.html to an existing report page.

    A page that is written later includes the link.
    """
    if store.storage.exists("report/index.html"):
        page = store.storage.read("report/index.html").decode()
        store.storage.write("report/index.html", page.replace(_LINK_PLACEHOLDER, _LINK, 1).encode())
