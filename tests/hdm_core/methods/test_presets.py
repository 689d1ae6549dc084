from __future__ import annotations

import json

import pytest
from pydantic import ValidationError

from hdm_core.methods.presets import DM_PRESETS, HDM_PRESETS
from hdm_core.settings import DMSettings, HDMSettings

PAPER = {
    "steps": 800,
    "learning_rate": 1e-2,
    "eta": 100.0,
    "relative": False,
    "noise": 0.0,
    "removal": 0.0,
    "tau": 0.5,
    "keep_fraction": 0.3,
    "baseline": "mean",
    "activation": "logit",
}
MIXING = {"mix_steps": 400, "mix_learning_rate": 1e-1, "mix_weight": 1e-4}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("paper-cub", {"sizes": (6, 7, 8, 9, 10, 11), "ratios": (2, 3, 5), "stages": 3}),
        ("paper-pm", {"sizes": (6, 7, 8, 9), "ratios": (2, 3), "stages": 1}),
    ],
)
def test_the_papers_presets(name: str, expected: dict[str, object]) -> None:
    assert HDM_PRESETS[name].identity() == json.loads(json.dumps({**PAPER, **MIXING, **expected})), "what the paper does not have is off"


@pytest.mark.parametrize("name", HDM_PRESETS)
def test_dms_presets_are_one_block_of_hdms(name: str) -> None:
    block = DM_PRESETS[name].model_dump()
    assert block.items() <= HDM_PRESETS[name].model_dump().items()
    assert set(block) == set(DMSettings.model_fields)


@pytest.mark.parametrize("name", HDM_PRESETS)
def test_presets_pass_their_own_validation(name: str) -> None:
    assert HDMSettings.model_validate(HDM_PRESETS[name].model_dump()) == HDM_PRESETS[name]


@pytest.mark.parametrize(
    "changed",
    [
        {"sizes": ()},
        {"sizes": (0,)},
        {"sizes": (2.5,)},
        {"ratios": ()},
        {"ratios": (1,)},
        {"steps": 0},
        {"learning_rate": 0},
        {"learning_rate": -1},
        {"eta": -1},
        {"tau": 1.5},
        {"tau": -0.1},
        {"keep_fraction": 0},
        {"keep_fraction": 1.01},
        {"baseline": "white"},
        {"activation": "softmax"},
        {"stages": 0},
        {"mix_steps": 0},
        {"mix_learning_rate": 0},
        {"mix_weight": -1e-9},
        {"step": 3},
        {"learning_rate": float("nan")},
    ],
    ids=str,
)
def test_a_setting_out_of_range_is_refused_by_name(changed: dict[str, object]) -> None:
    (name,) = changed
    with pytest.raises(ValidationError, match=name):
        HDMSettings.model_validate({**HDM_PRESETS["fast"].model_dump(), **changed})


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        HDM_PRESETS["fast"].steps = 3


def test_settings_survive_json() -> None:
    settings = HDM_PRESETS["paper-cub"]
    assert HDMSettings.model_validate_json(settings.model_dump_json()) == settings
