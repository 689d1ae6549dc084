"""`python -m flows [CONFIG]`: the flow in this process, with Prefect's server if one is configured and a temporary one if not."""

from __future__ import annotations

import typer

from flows.hdm import hdm


def main(config: str = typer.Argument("demo", help="a preset or a YAML file")) -> None:
    """Runs the flow `hdm`; exit code 1 if it failed."""
    state = hdm(config, return_state=True)
    raise typer.Exit(0 if state.is_completed() else 1)


if __name__ == "__main__":
    typer.run(main)
