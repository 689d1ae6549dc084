"""Command that makes the table of architectures: `python -m benchmarks models`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.console import err, out, print_json
from pipeline.cli.options import Json
from pipeline.errors import InputError


def models(
    only: Annotated[str | None, typer.Option(help="architectures such as timm:resnet10t, separated by commas; all by default")] = None,
    seconds: Annotated[float, typer.Option(min=1, help="time per architecture, after which its further methods are skipped")] = 60,
    page: Annotated[str | None, typer.Option(help="page of the documentation whose table is replaced")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; one per core by default")] = None,
    as_json: Json = False,
) -> None:
    """Explain an image per architecture of torchvision and timm by every method."""
    import torch

    from benchmarks.models import all_names, bench_models
    from benchmarks.models_page import models_table, write_page

    if threads is not None:
        torch.set_num_threads(threads)
    names = all_names() if only is None else only.split(",")
    if wrong := [name for name in names if name.partition(":")[0] not in ("torchvision", "timm") or not name.partition(":")[2]]:
        raise InputError(f"--only {wrong[0]}: write torchvision:ARCH or timm:ARCH")
    results = bench_models(names, seconds, lambda line: err.print(line, markup=False, highlight=False))
    if page is not None:
        write_page(Path(page), results)
    if as_json:
        print_json({"models": [asdict(result) for result in results]})
    else:
        out.print(models_table(results), markup=False, highlight=False, soft_wrap=True)
