"""Command `hdm sanity`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from pipeline.cli.console import err, out, print_json
from pipeline.cli.execute import FAILED
from pipeline.cli.options import Config, Json, Root, Set, configuration

if TYPE_CHECKING:
    from pipeline.sanity import SanityResult

Images = Annotated[int, typer.Option("--limit-images", min=1, help="maximum number of images, evenly spaced over the dataset")]
Blocks = Annotated[int, typer.Option(min=1, help="maximum number of blocks of layers that are randomised one after the other")]
Against = Annotated[
    str | None,
    typer.Option(
        metavar="CONFIG|CLASSIFIER|WEIGHTS",
        help="another training of the network: a configuration, a trained folder, a section '{source: ...}', or a file of weights",
    ),
]
Limits = Annotated[
    list[str] | None,
    typer.Option("--limit", metavar="NAME=VALUE", help="another limit of a test, such as noise=0.5, or noise=null for none"),
]
Out = Annotated[str | None, typer.Option("--out", help="the folder or URL for sanity.parquet and the page, instead of NAME-sanity")]

_COLOURS = {"pass": "green", "fail": "red", "unclear": "yellow"}


def sanity(
    config: Config,
    root: Root = None,
    set_: Set = None,
    limit_images: Images = 16,
    blocks: Blocks = 6,
    against: Against = None,
    limit: Limits = None,
    out_: Out = None,
    as_json: Json = False,
) -> None:
    """Check that maps depend on the network, the class and the image.

    Random weights, another class, another seed, another checkpoint, noise, JPEG, and the annotated regions. Exits with 1 if a limit is
    broken.
    """
    from pipeline.cli.limits import parse_limits
    from pipeline.errors import InputError, one_line
    from pipeline.monitoring.progress import progress_bar
    from pipeline.sanity import SanityLimits, run_sanity, write_sanity
    from pipeline.sanity.against import load_against
    from pipeline.sanity.write import NAME, describe, sanity_storage
    from pipeline.storage.objects import Storage

    limits = parse_limits(limit or [], SanityLimits, "noise=0.5")
    checked = configuration(config, None, root, None, set_)
    other = None if against is None else load_against(against, checked)
    try:
        target = sanity_storage(checked) if out_ is None else Storage(out_, checked.storage, checked.compute.storage_timeout)
    except (ValueError, ImportError) as error:
        raise InputError(f"--out {out_}: {one_line(error)}") from None
    with progress_bar(err) as on_progress:
        result = run_sanity(checked, limits, against=other, images=limit_images, blocks=blocks, on_progress=on_progress)
    try:
        page = write_sanity(result, target)
    except OSError as error:
        raise InputError(f"{target.url('')} cannot be written: {one_line(error)}; choose another place with --out") from None
    if as_json:
        failed = [_line(row.method, row.test, row.stage) for row in result.failed]
        rows = [row.as_dict() for row in result.rows]
        print_json({**describe(result), "rows": rows, "failed": failed, "sanity": target.url(NAME), "page": page})
    else:
        _print(result)
        out.print(page, markup=False, soft_wrap=True)
    if result.failed:
        for row in result.failed:
            number = f"{row.value.mean:.3f} ({row.value.low:.3f} to {row.value.high:.3f})"
            err.print(
                f"limit broken: {_line(row.method, row.test, row.stage)}: {row.measure} {number}, limit {row.limit:g}",
                markup=False,
                highlight=False,
                soft_wrap=True,
            )
        raise typer.Exit(FAILED)


def _line(method: str, test: str, stage: str) -> str:
    return f"{method}: {test}, {stage}"


def _print(result: SanityResult) -> None:
    """Print the verdict of every test and method, and why tests were left out."""
    from hdm_core import controls_last
    from pipeline.sanity.summary import TITLES, summarise

    out.print(f"{result.classifier} on {len(result.data.samples)} images", markup=False)
    table = Table("test", *controls_last(result.config.methods), box=None)
    summaries = {method: summarise(result.rows, method) for method in controls_last(result.config.methods)}
    reasons: dict[tuple[str, str], list[str]] = {}
    for test in TITLES:
        cells = []
        for method, tests in summaries.items():
            found = tests[test]
            cell = Text(found.verdict, style=_COLOURS.get(found.verdict, ""))
            if found.row.value.mean is not None:
                cell.append(f"\n{found.number}, n {found.row.value.n}", style="default")
            if found.verdict == "left out":
                reasons.setdefault((method, found.row.reason), []).append(test)
            cells.append(cell)
        table.add_row(test, *cells)
    out.print(table)
    grouped: dict[tuple[str, str], list[str]] = {}
    for (method, reason), tests_of in reasons.items():
        grouped.setdefault((", ".join(tests_of) if len(tests_of) < len(TITLES) else "all tests", reason), []).append(method)
    for (names, reason), methods in grouped.items():
        of = "" if len(methods) == len(summaries) else f" of {', '.join(methods)}"
        out.print(f"left out: {names}{of}: {reason}", markup=False, highlight=False, soft_wrap=True)
    out.print("means over the images and their 95% intervals, of the stage that is worst", markup=False)
