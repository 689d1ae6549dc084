"""Methods on the pretended GPU: tensors are on one device, and float32 maps have the CPU's bits."""

from __future__ import annotations

import pytest
import torch

from hdm_core import METHODS, Classifier, explain, measure_baselines
from hdm_core.methods.presets import HDM_PRESETS
from hdm_core.sources.exported import Exported
from hdm_core.testing.families import FAMILIES
from tests.cuda.settings import NETWORKS, SHORT, explained
from tests.support.pretended_gpu import pretended_gpu
from tests.support.tiny_networks import pictures, smooth

ATTENTION_ONLY = {"legrad", "attention_rollout"}
# Refused for this network on every device: its logits are not the sum of pixels and biases.
REFUSED = {("full_grad", "attention")}


CASES = [
    (method, network)
    for method in METHODS
    for network in NETWORKS
    if (method, network) not in REFUSED and (method not in ATTENTION_ONLY or network == "attention")
]


@pytest.mark.parametrize(("method", "network"), CASES)
def test_maps_are_computed_on_the_gpu_with_the_bits_of_the_cpu(method: str, network: str) -> None:
    images = pictures(2, 16)
    expected = explained(NETWORKS[network](), images, method)
    with pretended_gpu() as gpu:
        on_gpu = NETWORKS[network]().to("cuda")
        for given in (images, images.to("cuda")):
            found = explained(on_gpu, given, method, precision="float32")
            assert {each.device.type for each in (found.maps, found.logits, found.targets)} == {"cuda"}
            assert torch.equal(found.maps.cpu(), expected.maps)
            assert torch.equal(found.logits.cpu(), expected.logits)
            assert found.status == expected.status
        assert gpu.kernels["aten.convolution.default"]


@pytest.mark.parametrize("method", ["hdm", "dm"])
def test_the_best_baseline_of_each_image_is_found_on_the_gpu(method: str) -> None:
    images = pictures(4, 16)
    expected = explained(smooth(), images, method, target=[0, 1, 0, 1], baseline="auto")
    with pretended_gpu():
        found = explained(smooth().to("cuda"), images, method, target=[0, 1, 0, 1], precision="float32", baseline="auto")
        assert found.baselines == expected.baselines
        assert torch.equal(found.maps.cpu(), expected.maps)
        measured = measure_baselines(smooth().to("cuda"), images, [0, 1, 0, 1])
        assert measured.baseline.device.type == "cuda"
        # On the CPU the images go through the network one by one, which rounds differently.
        torch.testing.assert_close(measured.baseline.cpu(), measure_baselines(smooth(), images, [0, 1, 0, 1]).baseline)


@pytest.mark.parametrize("method", ["hdm", "grad_cam"])
@pytest.mark.parametrize("family", FAMILIES)
def test_torchvisions_families_have_the_bits_of_the_cpu(method: str, family: str) -> None:
    images = pictures(2, 32)
    expected = explained(FAMILIES[family](), images, method, target=1)
    with pretended_gpu():
        found = explained(FAMILIES[family]().to("cuda"), images, method, target=1, precision="float32")
        assert torch.equal(found.maps.cpu(), expected.maps)


def test_an_exported_program_is_explained_on_the_gpu() -> None:
    program = torch.export.export(smooth(), (pictures(2, 16),), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
    for method in ("hdm", "gradient"):
        expected = explained(Exported(program), pictures(2, 16), method)
        with pretended_gpu():
            found = explained(Exported(program).to("cuda"), pictures(2, 16), method, precision="float32")
            assert torch.equal(found.maps.cpu(), expected.maps)


@pytest.mark.parametrize("method", ["hdm", "dm", "mask", "rise"])
@pytest.mark.parametrize("network", ["normalised", "residual", "attention"])
def test_bfloat16_the_default_on_a_gpu_runs_there(method: str, network: str) -> None:
    with pretended_gpu():
        found = explained(NETWORKS[network]().to("cuda"), pictures(2, 16), method)
        assert found.maps.device.type == "cuda"
        assert found.maps.dtype == torch.float32
        assert "nan" not in found.status


@pytest.mark.parametrize("preset", HDM_PRESETS)
@pytest.mark.parametrize("baseline", ["mean", "blur"])
def test_every_preset_of_hdm_has_the_bits_of_the_cpu(preset: str, baseline: str) -> None:
    images, changes = pictures(2, 16), {**SHORT["hdm"], "preset": preset, "baseline": baseline, "removal": 0.1}
    expected = explain(smooth(), images, "hdm", batch=4, **changes)
    with pretended_gpu():
        found = explain(smooth().to("cuda"), images, "hdm", batch=4, precision="float32", **changes)
        assert torch.equal(found.maps.cpu(), expected.maps)
        assert torch.equal(found.stages.cpu(), expected.stages)
        assert torch.equal(found.stage_weights.cpu(), expected.stage_weights)


@pytest.mark.parametrize("contrast", ["runner_up", 0, [0, 2]])
@pytest.mark.parametrize("method", ["hdm", "gradient", "grad_cam"])
def test_contrasts_have_the_bits_of_the_cpu(contrast: str | int | list[int], method: str) -> None:
    images = pictures(2, 16)
    expected = explained(smooth(), images, method, target=1, contrast=contrast)
    with pretended_gpu():
        found = explained(smooth().to("cuda"), images, method, target=1, contrast=contrast, precision="float32")
        assert torch.equal(found.maps.cpu(), expected.maps)
        assert torch.equal(found.contrasts.cpu(), expected.contrasts)


@pytest.mark.parametrize("problem_type", ["multi_label_classification", "regression"])
def test_other_problem_types_have_the_bits_of_the_cpu(problem_type: str) -> None:
    images = pictures(2, 16)
    network = smooth(1)
    expected = explained(Classifier.from_module(network, problem_type=problem_type), images, "hdm", target=0)
    with pretended_gpu():
        on_gpu = Classifier.from_module(smooth(1).to("cuda"), problem_type=problem_type)
        assert torch.equal(explained(on_gpu, images, "hdm", target=0, precision="float32").maps.cpu(), expected.maps)
