"""Command `python -m flows [CONFIG]`: run the flow `hdm` in this process.

It uses the configured Prefect server, or else a temporary one.
"""

from __future__ import annotations

import sys
from pathlib import Path

import typer

import pipeline


def main(config: str = typer.Argument("demo", help="a preset or a YAML file")) -> None:
    """Run the flow `hdm`; exits with 1 if it failed or has no Prefect server."""
    # Python looks for packages in the current folder first, and many projects have a folder named pipeline.
    if pipeline.__file__ is None or Path(pipeline.__file__).resolve().parents[1] != Path(__file__).resolve().parents[1]:
        found = next(iter(pipeline.__path__))
        sys.stderr.write(f"hdm: {found} is another package named pipeline, found before hdm's own; start from another folder\n")
        raise typer.Exit(2)
    from flows.server import ServerError, connect_server

    try:
        connect_server()
    except ServerError as error:
        sys.stderr.write(f"hdm: {error}\n")
        raise typer.Exit(1) from None
    from flows.hdm import hdm
    from pipeline.cli.console import accept_any_encoding

    accept_any_encoding()
    state = hdm(config, return_state=True)
    raise typer.Exit(0 if state.is_completed() else 1)


if __name__ == "__main__":
    typer.run(main)
