"""Probe, check, and metadata of a classifier on the pretended GPU."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

from hdm_core import Classifier, Preprocess, check
from hdm_core.device import device_name, pick_device
from hdm_core.probe import probe
from tests.cuda.settings import NETWORKS
from tests.support.pretended_gpu import pretended_gpu
from tests.support.tiny_networks import pictures, smooth


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_network_is_probed_on_the_gpu(precision: str) -> None:
    with pretended_gpu() as gpu:
        found = probe(Classifier.from_module(smooth().to("cuda")), 16, [2, 4], precision=precision, repeats=1)
        assert found.batch in {2, 4}
        assert gpu.kernels["aten.convolution.default"]
        assert any(kind == "synchronise" for kind, _ in gpu.waits)


def test_the_batch_is_one_of_the_gpus_candidates() -> None:
    with pretended_gpu():
        assert probe(Classifier.from_module(smooth().to("cuda")), 8, repeats=1).batch in {16, 32, 64, 128, 256}


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("place", ["cpu", "cuda"])
def test_a_check_finds_the_same_as_on_the_cpu(network: str, place: str) -> None:
    expected = check(NETWORKS[network](), pictures(2, 16))
    with pretended_gpu():
        assert check(NETWORKS[network]().to("cuda"), pictures(2, 16).to(place)) == expected


def test_photographs_are_prepared_on_the_device_of_the_network() -> None:
    with pretended_gpu():
        classifier = Classifier(smooth().to("cuda"), Preprocess(resize=16, crop=16))
        assert classifier.device == torch.device("cuda", 0)
        assert classifier.prepare([Image.new("RGB", (24, 20), "orange")]).device.type == "cuda"


def test_the_weights_have_the_same_digest() -> None:
    expected = Classifier.from_module(smooth()).weights_digest()
    with pretended_gpu():
        assert Classifier.from_module(smooth().to("cuda")).weights_digest() == expected


def test_a_worker_that_requests_a_share_gets_the_gpu() -> None:
    with pretended_gpu():
        assert pick_device(0.5).type == "cuda"
        assert pick_device(0).type == "cpu"
        assert device_name(pick_device(1)) == "pretended GPU"
