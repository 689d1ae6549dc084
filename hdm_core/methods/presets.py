"""Presets of DM and HDM.

`paper-*` are Section 4.2 of the paper; `fast` takes 320 passes per image where `paper-cub` takes 134,800.
"""

from __future__ import annotations

from hdm_core.settings import DMSettings, HDMSettings

HDM_PRESETS: dict[str, HDMSettings] = {
    "paper-cub": HDMSettings(sizes=(6, 7, 8, 9, 10, 11), ratios=(2, 3, 5), stages=3),
    "paper-pm": HDMSettings(sizes=(6, 7, 8, 9), ratios=(2, 3), stages=1),
    # Few sizes, large steps, one stage, no threshold, and a changed loss: chosen by `python -m benchmarks pareto`, see docs/engine.md.
    "fast": HDMSettings(
        sizes=(6, 8, 11), ratios=(2,), stages=1, steps=20, learning_rate=0.15, eta=1.0, relative=True, noise=0.5, keep_fraction=1.0
    ),
}

DM_PRESETS: dict[str, DMSettings] = {
    name: DMSettings(**{field: getattr(preset, field) for field in DMSettings.model_fields}) for name, preset in HDM_PRESETS.items()
}
