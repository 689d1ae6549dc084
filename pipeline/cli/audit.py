"""Command `hdm audit`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from pipeline.cli.console import err, out, print_json
from pipeline.cli.execute import FAILED
from pipeline.cli.options import Json, Run, Set

if TYPE_CHECKING:
    from pipeline.audit import Audit

Method = Annotated[str | None, typer.Option(help="whose maps are read, instead of the run's first method")]
NoCausal = Annotated[bool, typer.Option("--no-causal", help="make no forward passes: suspicions are not tested")]
FailOn = Annotated[
    list[str] | None,
    typer.Option("--fail-on", metavar="KIND", help="exit with 1 on a finding: confirmed, spatial, background, group, weak, any"),
]
Out = Annotated[str | None, typer.Option("--out", help="the folder or URL for the files, instead of RUN")]

_SHOWN = 20  # findings that are printed


def audit(
    run: Run,
    method: Method = None,
    set_: Set = None,
    no_causal: NoCausal = False,
    fail_on: FailOn = None,
    out_: Out = None,
    as_json: Json = False,
) -> None:
    """Find what a classifier has learnt that it should not have.

    Classes whose maps stay at one place or on the background, groups of maps, weak maps. Places are tested with forward passes.
    """
    from pipeline.audit import audit_run, write_audit
    from pipeline.audit.finding import KINDS
    from pipeline.audit.settings import audit_settings
    from pipeline.config.load import parse_changes
    from pipeline.errors import InputError, one_line, suggest
    from pipeline.monitoring.progress import progress_bar
    from pipeline.runs import RunStore
    from pipeline.storage.objects import Storage

    known = ("confirmed", *KINDS, "any")
    for kind in fail_on or ():
        if kind not in known:
            raise InputError(f"--fail-on {kind}: no such kind{suggest(kind, known, list_all=True)}")
    settings = audit_settings(parse_changes(set_ or []))
    store = RunStore.open(run)
    try:
        target = None if out_ is None else Storage(out_)
    except (ValueError, ImportError) as error:
        raise InputError(f"--out {out_}: {one_line(error)}") from None
    with progress_bar(err) as on_progress:
        found = audit_run(store, settings, method, not no_causal, on_progress)
    try:
        page = write_audit(found, target)
    except OSError as error:
        raise InputError(
            f"{(target or store.storage).url('')} cannot be written: {one_line(error)}; choose another place with --out"
        ) from None
    if as_json:
        facts = {"run": store.url, "method": found.method, "images": found.images, "classes": found.classes, "notes": found.notes}
        print_json({**facts, "page": page, "findings": [finding.as_dict() for finding in found.findings]})
    else:
        _print(found)
        out.print(page, markup=False, soft_wrap=True)
    if any(_counts(finding.kind, finding.confirmed, fail_on or ()) for finding in found.findings):
        raise typer.Exit(FAILED)


def _counts(kind: str, confirmed: bool | None, fail_on: list[str] | tuple[str, ...]) -> bool:
    """Return whether a finding makes the command fail; a refuted one does not."""
    return confirmed is not False and ("any" in fail_on or kind in fail_on or (confirmed is True and "confirmed" in fail_on))


def _print(found: Audit) -> None:
    for note in found.notes:
        err.print(note, markup=False, highlight=False, soft_wrap=True)
    if not found.findings:
        out.print(f"{found.images:,} maps of {found.classes:,} classes: no class stands out", markup=False)
        return
    table = Table("verdict", "class", "kind", "finding", box=None)
    words = {True: "confirmed", False: "not confirmed", None: "-"}
    for finding in found.findings[:_SHOWN]:
        table.add_row(words[finding.confirmed], Text(finding.class_name), finding.kind, Text(finding.text))
    out.print(table)
    if len(found.findings) > _SHOWN:
        out.print(f"and {len(found.findings) - _SHOWN:,} more in audit.parquet", markup=False)
