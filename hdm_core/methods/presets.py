"""Presets of DM and HDM.

`paper-*` are Section 4.2 of the paper; `fast` takes 320 passes per image where `paper-cub` takes 134,800, and `faithful` 150.
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
    # Two blocks of masks that are tried as sets of pixels: by what they keep of the log-odds on grey, and by what they keep and remove of
    # the logit on noise. See docs/method.md.
    "faithful": HDMSettings(
        sizes=(6, 8, 11),
        ratios=(2,),
        stages=1,
        steps=6,
        learning_rate=0.1,
        eta=1.0,
        relative=True,
        keep_fraction=1.0,
        activation="log_odds",
        loss="linear",
        views=("top",),
        max_size=48,
        blur=6 / 224,
        schedule="cosine",
        average=0.5,
        start="cam",
        ensemble=({"activation": "logit", "views": ("top", "rest"), "noise": 0.5, "edge": 0.5, "steps": 8},),
        calibration=(0.01, 0.02, 0.04, 0.08, 0.14, 0.22, 0.32, 0.45, 0.6),
    ),
}

DM_PRESETS: dict[str, DMSettings] = {
    name: DMSettings(**{field: getattr(preset, field) for field in DMSettings.model_fields}) for name, preset in HDM_PRESETS.items()
}
