"""Command `hdm view`."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.cli.console import out
from pipeline.cli.options import Run

Against = Annotated[str | None, typer.Option(metavar="RUN", help="a second run, whose maps are shown beside those of the first")]
Port = Annotated[int, typer.Option(min=0, max=65535, help="the port on this machine; a free one if not given")]
NoOpen = Annotated[bool, typer.Option("--no-open", help="do not open the browser")]


def view(run: Run, against: Against = None, port: Port = 0, no_open: NoOpen = False) -> None:
    """Look through a run in the browser: filter, sort, compare; nothing is written.

    The address has a token and is reachable from this machine alone. Ctrl-C ends it.
    """
    import webbrowser

    from pipeline.runs import RunStore
    from pipeline.view import RunView, serve

    def ready(url: str) -> None:
        out.print(url, markup=False, highlight=False, soft_wrap=True)
        out.file.flush()
        if not no_open:
            webbrowser.open(url)

    shown = RunView(RunStore.open(run), None if against is None else RunStore.open(against))
    try:
        serve(shown, port, ready)
    finally:
        shown.close()
