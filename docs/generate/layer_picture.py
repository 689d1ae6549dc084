"""SVG of the package layers, drawn from import-linter's contracts in pyproject.toml.

`python docs/generate/layer_picture.py` writes docs/layers.svg; a test compares the file with the contracts.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from xml.sax.saxutils import escape

ROOT = Path(__file__).resolve().parents[2]
WIDTH, ROW, GAP, MARGIN, TITLE = 680, 34, 8, 24, 26  # pixels

# The purpose of each folder or module that a contract names: what the picture says beside the name.
PURPOSES = {
    "cli": "the command hdm",
    "drift": "compare two runs",
    "audit": "find what a classifier should not look at",
    "view": "look through a run in the browser",
    "training": "fine-tune a classifier",
    "reexplain": "the next run, incrementally",
    "report": "page and figures",
    "execution": "driver, workers, retries",
    "tables": "metrics, aggregated",
    "pipeline.explain": "maps and metrics of one shard",
    "hdm_core.explain": "images in, maps out",
    "runs": "a run on storage",
    "plan": "images and shards of a run",
    "pipeline.preflight": "the classifier, checked",
    "hdm_core.preflight": "check: all findings",
    "baseline_contrast": "what a baseline keeps",
    "checks": "what is assumed, measured",
    "class_names": "compared as text",
    "messages": "errors as one line",
    "integers": "of numpy and torch",
    "photograph": "depth and channels",
    "geometry": "affine map",
    "environment": "variables and proxies",
    "classifiers": "network and target",
    "datasets": "images and ground truth",
    "config": "what a run is",
    "storage": "bytes at a URL",
    "workflow": "train, plan, execute, report",
    "section": "base of configuration sections",
    "errors": "exceptions",
    "redaction": "secrets",
    "monitoring": "progress, metrics, logs",
    "probe": "batch size and speed",
    "memory": "bytes of a batch",
    "free_memory": "free bytes",
    "methods": "one file per method",
    "metrics": "faithfulness",
    "masking": "mask optimisation",
    "classifier": "the wrapped network",
    "sources": "where networks come from",
    "network": "hooks, folding, logits",
    "preprocess": "resize, crop, normalise",
    "device": "device, batch, precision",
    "batch_limit": "halved without memory",
    "cuda_graphs": "capture and replay",
    "device_errors": "fatal, out of memory",
    "settings": "validated settings",
    "registry": "entries and plugins",
    "testing": "contract suites for plugins",
    "explanation": "the result",
    "evidence": "sets of pixels that suffice alone",
    "hdm_core.sanity": "what should change a map",
    "pipeline.sanity": "verdicts on methods",
    "similarity": "Spearman, SSIM",
    "draws": "seed of methods",
    "targets": "classes to explain",
    "heatmap": "colours over an image",
    "on_photograph": "maps in its pixels",
    "contours": "polygons of a map",
    "notebook": "pictures in Jupyter",
    "export": "maps as files",
}


def layer_contracts() -> dict[str, list[list[str]]]:
    """Return the layers by package, from the highest to the lowest, as import-linter checks them."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    found: dict[str, list[list[str]]] = {}
    for contract in contracts:
        if contract["type"] == "layers":
            for container in contract.get("containers", [""]):
                found[container] = [[part.strip() for part in layer.replace(":", "|").split("|")] for layer in contract["layers"]]
    return found


def draw() -> str:
    """Draw all packages below each other: a box per module, a row per layer."""
    contracts = layer_contracts()
    order = [layer[0] for layer in contracts.pop("")]
    parts, y = [], MARGIN
    for package in order:
        layers = contracts.get(package, [])
        height = TITLE + max(len(layers), 1) * (ROW + GAP)
        box = f'x="{MARGIN / 2:g}" y="{y}" width="{WIDTH - MARGIN}" height="{height}"'
        parts.append(f'<rect {box} rx="6" fill="#f4f6fa" stroke="#8a94a6"/>')
        parts.append(f'<text x="{MARGIN}" y="{y + 18}" font-weight="bold">{escape(package)}</text>')
        if not layers:
            parts.append(f'<text x="{MARGIN}" y="{y + TITLE + 18}" fill="#444">Prefect flows and their tasks</text>')
        for row, layer in enumerate(layers):
            parts += _row(package, layer, y + TITLE + row * (ROW + GAP))
        y += height + MARGIN
        if package != order[-1]:
            parts.append(f'<text x="{WIDTH / 2:g}" y="{y - 8}" text-anchor="middle">imports &#8595;</text>')
    style = 'font-family="sans-serif" font-size="12" fill="#111"'
    size = f'width="{WIDTH}" height="{y}" viewBox="0 0 {WIDTH} {y}"'
    start = f'<svg xmlns="http://www.w3.org/2000/svg" {size} {style} role="img">\n<title>Layers of the packages</title>'
    background = f'<rect width="{WIDTH}" height="{y}" fill="#fff"/>'
    return "\n".join([start, background, *parts, "</svg>", ""])


def _row(package: str, layer: list[str], y: int) -> list[str]:
    width = (WIDTH - 2 * MARGIN - GAP * (len(layer) - 1)) / len(layer)
    parts = []
    for column, module in enumerate(layer):
        x = MARGIN + column * (width + GAP)
        purpose = PURPOSES.get(f"{package}.{module}") or PURPOSES.get(module, "")
        parts.append(f'<rect x="{x:g}" y="{y}" width="{width:g}" height="{ROW}" rx="4" fill="#fff" stroke="#3f51b5"/>')
        parts.append(f'<text x="{x + 8:g}" y="{y + 14}" font-weight="bold">{escape(module)}</text>')
        parts.append(f'<text x="{x + 8:g}" y="{y + 28}" font-size="10" fill="#444">{escape(purpose)}</text>')
    return parts


if __name__ == "__main__":
    (ROOT / "docs" / "layers.svg").write_text(draw())
