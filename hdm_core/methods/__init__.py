"""The registry of saliency methods: one signature, one file per method."""

from __future__ import annotations

from collections.abc import Iterable

from hdm_core.methods.ablation_cam import ABLATION_CAM
from hdm_core.methods.attention_rollout import ATTENTION_ROLLOUT
from hdm_core.methods.base import ExplainJob, Method, RawMaps
from hdm_core.methods.center import CENTER
from hdm_core.methods.deeplift import DEEPLIFT
from hdm_core.methods.dm import DM
from hdm_core.methods.edges import EDGES
from hdm_core.methods.eigen_cam import EIGEN_CAM
from hdm_core.methods.expected_gradients import EXPECTED_GRADIENTS
from hdm_core.methods.finer_cam import FINER_CAM
from hdm_core.methods.full_grad import FULL_GRAD
from hdm_core.methods.grad_cam import GRAD_CAM
from hdm_core.methods.grad_cam_pp import GRAD_CAM_PP
from hdm_core.methods.gradient import GRADIENT
from hdm_core.methods.hdm import HDM
from hdm_core.methods.igos_pp import IGOS_PP
from hdm_core.methods.input_x_gradient import INPUT_X_GRADIENT
from hdm_core.methods.integrated_gradients import INTEGRATED_GRADIENTS
from hdm_core.methods.layer_cam import LAYER_CAM
from hdm_core.methods.legrad import LEGRAD
from hdm_core.methods.mask import MASK
from hdm_core.methods.occlusion import OCCLUSION
from hdm_core.methods.opti_cam import OPTI_CAM
from hdm_core.methods.random_map import RANDOM_MAP
from hdm_core.methods.rise import RISE
from hdm_core.methods.score_cam import SCORE_CAM
from hdm_core.methods.smooth_grad import SMOOTH_GRAD
from hdm_core.methods.xgrad_cam import XGRAD_CAM
from hdm_core.registry import Registry
from hdm_core.settings import did_you_mean

# In the order of tables and pages; installed packages add theirs by the entry points `hdm.methods`.
METHODS: Registry[Method] = Registry(
    "hdm.methods",
    Method,
    (
        HDM,
        DM,
        GRADIENT,
        DEEPLIFT,
        INTEGRATED_GRADIENTS,
        RISE,
        MASK,
        GRAD_CAM,
        GRAD_CAM_PP,
        SCORE_CAM,
        ABLATION_CAM,
        XGRAD_CAM,
        EIGEN_CAM,
        LAYER_CAM,
        FULL_GRAD,
        LEGRAD,
        ATTENTION_ROLLOUT,
        SMOOTH_GRAD,
        INPUT_X_GRADIENT,
        OCCLUSION,
        EXPECTED_GRADIENTS,
        OPTI_CAM,
        FINER_CAM,
        IGOS_PP,
        CENTER,
        EDGES,
        RANDOM_MAP,
    ),
)

# HDM, DM and those that their paper compares them with: `methods: paper` of a configuration.
PAPER_METHODS = (
    *("hdm", "dm", "gradient", "deeplift", "integrated_gradients", "rise", "mask"),
    *("grad_cam", "grad_cam_pp", "score_cam", "ablation_cam", "xgrad_cam", "eigen_cam", "layer_cam", "full_grad"),
)

__all__ = ["METHODS", "PAPER_METHODS", "ExplainJob", "Method", "RawMaps", "controls_last", "get_method", "is_control", "method_title"]


def get_method(name: str) -> Method:
    """Return the method of this id.

    Raises:
        ValueError: if there is none.
    """
    if name not in METHODS:
        near = did_you_mean(str(name), list(METHODS))
        raise ValueError(f"unknown method {name!r}" + (f"{near} All are" if near else ": choose from") + f" {', '.join(METHODS)}")
    return METHODS[name]


def method_title(name: str) -> str:
    """Return a method's title; its id if it is not installed here."""
    return METHODS[name].title if name in METHODS else name


def is_control(name: str) -> bool:
    """Return whether a method is a control; False if it is not installed here."""
    return name in METHODS and METHODS[name].is_control


def controls_last(names: Iterable[str]) -> list[str]:
    """Return ids once each in the registry's order, and the controls after all others.

    Those that are not installed here come before the controls.
    """
    return sorted(METHODS.sort(names), key=is_control)
