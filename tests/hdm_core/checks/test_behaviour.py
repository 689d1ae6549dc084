"""What is measured of a network: logits, repetition, independence, gradient."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hdm_core import Classifier, evaluate, explain
from hdm_core.checks.behaviour import check_behaviour
from hdm_core.checks.gradient import check_gradient
from hdm_core.testing.networks import assert_unchanged, mixed_state_network, sample_images, smooth_network, snapshot


class Wrapped(nn.Module):
    """A network with a function behind or before it."""

    def __init__(self, after: Callable[[Tensor], Tensor] = lambda z: z, before: Callable[[Tensor], Tensor] = lambda x: x) -> None:
        super().__init__()
        self.network, self.after, self.before = smooth_network(3), after, before

    def forward(self, images: Tensor) -> Tensor:
        return self.after(self.network(self.before(images)))


class Bounded(nn.Module):
    """Logits between 0 and the given value for photographs, and above for louder images, as of a new SqueezeNet."""

    def __init__(self, largest: float) -> None:
        super().__init__()
        self.largest = largest

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.largest / 4 * torch.relu(images.mean((2, 3)) * 100).sqrt()
        return logits


class StaysInTraining(nn.Dropout):
    """Dropout that eval() does not switch off."""

    def train(self, mode: bool = True) -> StaysInTraining:
        return super().train()


def verdicts(network: nn.Module, batch: int = 4) -> dict[str, tuple[str, str]]:
    findings = check_behaviour(Classifier.from_module(network), sample_images(2), batch).findings
    return {finding.subject: (finding.verdict, finding.text) for finding in findings}


def test_an_answer_that_is_random_only_for_batches_is_not_taken_for_one_that_depends_on_them() -> None:
    """As a random answer whose first two calls agree by luck."""

    class RandomForBatches(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            logits = images.mean((2, 3))
            return logits + torch.randn_like(logits) if len(images) > 1 else logits

    found = verdicts(RandomForBatches())
    assert "independence" not in found
    verdict, text = found["repetition"]
    assert verdict == "refused"
    assert "another random draw is active" in text


def test_weights_that_are_made_in_the_forward_leave_no_graph() -> None:
    """A graph of the probes would cost memory, and a warning of torch's where a logit becomes a number."""

    class Makes(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images.mean((2, 3)) * nn.Parameter(torch.tensor([1.0, 2.0, 3.0]))

    with torch.inference_mode(False):
        assert {verdict for verdict, _ in verdicts(Makes()).values()} == {"ok"}


def test_an_ordinary_network_is_as_expected_and_left_as_it_was() -> None:
    network = mixed_state_network()
    before, random_state = snapshot(network), torch.random.get_rng_state()
    assert {subject: verdict for subject, (verdict, _) in verdicts(network).items()} == {
        "output": "ok",
        "repetition": "ok",
        "independence": "ok",
    }
    assert check_gradient(Classifier.from_module(network), sample_images(2)).verdict == "ok"
    assert_unchanged(network, before)
    assert torch.equal(torch.random.get_rng_state(), random_state)


@pytest.mark.parametrize("scale", [1e-4, 1e4])
def test_the_scale_of_the_logits_does_not_matter(scale: float) -> None:
    assert verdicts(Wrapped(lambda z: scale * z))["independence"][0] == "ok"
    dependent = Wrapped(lambda z: scale * (z + 0.2 * z.mean(0)))
    assert verdicts(dependent)["independence"][0] == "refused"


def test_a_class_that_is_excluded_by_a_large_constant_hides_nothing() -> None:
    """Many networks give the classes that do not apply a logit such as -1e9, whose rounding is 60."""
    exclude = torch.tensor([0, 0, -1e9])
    assert {verdict for verdict, _ in verdicts(Wrapped(lambda z: z + exclude)).values()} == {"ok"}
    assert verdicts(Wrapped(lambda z: z + 0.2 * z.mean(0) + exclude))["independence"][0] == "refused"


@pytest.mark.parametrize("after", [lambda z: z + 0.2 * z.mean(0), lambda z: z * (0.9 + 0.2 * torch.rand(()))], ids=["mean", "draw"])
def test_a_constant_that_outweighs_the_logits_hides_nothing(after: Callable[[Tensor], Tensor]) -> None:
    """At log-probabilities of -1.1 that differ by 1e-5, as those of a network whose training has just begun."""
    found = verdicts(Wrapped(lambda z: (1e-4 * after(z)).log_softmax(1)))
    assert "refused" in {verdict for verdict, _ in found.values()}, found


@pytest.mark.parametrize(
    ("after", "words"),
    [
        (lambda z: z[:, :1], "one logit, and the softmax of a single class is 1"),
        (lambda z: z.softmax(1), "probabilities"),
        (lambda z: z.softmax(1).clamp(1e-6), "probabilities"),
        (lambda z: torch.cat([z, z], 1).softmax(1)[:, :, None].squeeze(2), "probabilities"),
        (torch.sigmoid, "sigmoid for every class"),
        (lambda z: torch.cat([column.sigmoid()[:, None] for column in z.unbind(1)], 1), "sigmoid for every class"),
        (lambda z: z.argmax(1, keepdim=True).expand(-1, 3), "torch.int64, not logits"),
    ],
    ids=["one logit", "softmax", "clamped softmax", "reshaped softmax", "sigmoid", "a sigmoid per head", "integers"],
)
def test_what_is_no_logit_is_refused(after: Callable[[Tensor], Tensor], words: str) -> None:
    verdict, text = verdicts(Wrapped(after))["output"]
    assert (verdict, words in text) == ("refused", True), text
    with pytest.raises(ValueError, match=words):
        explain(Wrapped(after), sample_images(1), "rise", masks=4)
    with pytest.raises(ValueError, match=words):
        evaluate(Wrapped(after), sample_images(2), torch.rand(2, 16, 16), 0)


def test_log_probabilities_have_the_right_softmax() -> None:
    verdict, text = verdicts(Wrapped(lambda z: z.log_softmax(1)))["output"]
    assert verdict == "handled"
    assert "log-probabilities" in text


@pytest.mark.parametrize(
    "network",
    [
        Wrapped(lambda z: torch.cat([torch.zeros_like(z[:, :1]), 0.8 + 0.1 * z[:, :1].tanh()], 1)),  # of two logits one is often a constant
        Wrapped(lambda z: z - z.amin(1, keepdim=True)),
        Wrapped(torch.relu),
        Bounded(0.7),
    ],
    ids=["zero and one", "no negative logits", "relu", "small relu"],
)
def test_logits_that_only_look_like_probabilities_are_accepted(network: nn.Module) -> None:
    assert verdicts(network)["output"][0] == "ok"


def test_a_doubt_becomes_a_warning_with_the_classifiers_name() -> None:
    network = Wrapped(lambda z: (4 * z).sigmoid() * torch.ones_like(z))
    with pytest.warns(UserWarning, match=r"Wrapped: .* all values lie in \[0, 1\]"):
        explain(network, sample_images(1), "gradient")


@pytest.mark.parametrize(
    ("network", "words"),
    [
        (Wrapped(before=lambda x: F.dropout(x)), "another random draw is active"),
        (Wrapped(after=lambda z: z + torch.randn_like(z)), "another random draw is active"),
        (nn.Sequential(StaysInTraining(0.5), smooth_network()), "0 stays in training mode after eval()"),
    ],
    ids=["functional dropout", "noise", "module that ignores eval"],
)
def test_answers_that_change_from_call_to_call_are_refused(network: nn.Module, words: str) -> None:
    verdict, text = verdicts(network)["repetition"]
    assert (verdict, words in text) == ("refused", True), text


@pytest.mark.parametrize(
    "before",
    [
        lambda x: F.batch_norm(x, None, None, training=True),
        lambda x: x - x.mean(0),
        lambda x: x / x.abs().amax(),
        lambda x: x.roll(1, 0) * 0.3 + x,
    ],
    ids=["batch statistics", "mean over the batch", "largest value of the batch", "the neighbour"],
)
def test_images_that_influence_each_other_are_refused(before: Callable[[Tensor], Tensor]) -> None:
    verdict, text = verdicts(Wrapped(before=before))["independence"]
    assert (verdict, "depend on the others in its batch" in text) == ("refused", True), text
    with pytest.raises(ValueError, match="depend on the others"):
        explain(Wrapped(before=before), sample_images(2), "grad_cam")


def test_batch_normalisation_without_running_statistics_is_refused() -> None:
    network = nn.Sequential(nn.BatchNorm2d(3, track_running_stats=False), smooth_network())
    assert verdicts(network)["independence"][0] == "refused"


@pytest.mark.parametrize("batch", [1, 2, 4])
def test_the_photograph_is_among_the_probes_of_any_batch(batch: int) -> None:
    image = sample_images(1) + 100
    seen: list[float] = []
    network = Wrapped(before=lambda x: [seen.extend(x.amax((1, 2, 3)).tolist()), x][1])
    check_behaviour(Classifier.from_module(network), image, batch)
    assert pytest.approx(float(image.amax())) in seen


def test_one_image_at_a_time_has_no_neighbours() -> None:
    sizes: list[int] = []
    network = Wrapped(before=lambda x: [sizes.append(len(x)), x][1])
    assert "independence" not in verdicts(network, batch=1)
    assert set(sizes) == {1}


@pytest.mark.parametrize(
    ("after", "verdict", "words"),
    [
        (lambda z: z * 0, "doubtful", "the same for all photographs and noise"),
        (lambda z: z / 0, "refused", "NaN or infinite"),
        (lambda z: torch.where(torch.arange(3) == 1, torch.nan, z), "doubtful", "some logits are NaN"),
        (lambda z: z + 1e7, "refused", "rounding of torch.float32"),
        (lambda z: (1e-6 * z).log_softmax(1), "refused", "rounding of torch.float32"),
    ],
    ids=["constant", "infinite", "one class is nan", "large constant", "small logits after log_softmax"],
)
def test_values_that_give_flat_maps_or_none(after: Callable[[Tensor], Tensor], verdict: str, words: str) -> None:
    found = verdicts(Wrapped(after))["values"]
    assert (found[0], words in found[1]) == (verdict, True), found


# Gradient


class Detached(Wrapped):
    def forward(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            features = self.network[:-1](images)
        logits: Tensor = self.network[-1](features)
        return logits


def quantised() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, of the module's end
        network: nn.Module = torch.ao.quantization.quantize_dynamic(smooth_network(), {nn.Linear})  # type: ignore[no-untyped-call]
    return network


NO_GRADIENT: dict[str, Callable[[], nn.Module]] = {
    "no_grad": Detached,
    "detach": lambda: Wrapped(before=Tensor.detach),
    "numpy": lambda: Wrapped(before=lambda x: torch.from_numpy(x.detach().numpy())),
    "quantised": quantised,
}


@pytest.mark.parametrize("name", NO_GRADIENT)
def test_no_way_for_the_gradient_is_one_line_for_methods_that_need_one(name: str) -> None:
    network = NO_GRADIENT[name]()
    finding = check_gradient(Classifier.from_module(network), sample_images(2))
    assert finding.verdict == "refused"
    assert "no gradient of the network's logits reaches the images" in finding.text
    if name == "quantised":  # on the fly, by the range of all values in the batch
        assert verdicts(network)["independence"][0] == "doubtful"
    for method in ("hdm", "gradient", "deeplift", "integrated_gradients", "full_grad", "mask"):
        with pytest.raises(ValueError, match="no gradient of the network's logits reaches the images"):
            explain(network, sample_images(1), method)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert explain(network, sample_images(1), "rise", masks=4).status == ["ok"]
    assert [str(each.message)[:60] for each in caught] == ["Sequential: an image's logits depend on the others in its ba"] * (
        name == "quantised"
    )


def test_activations_that_are_overwritten_are_one_line() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    for method in ("hdm", "gradient", "integrated_gradients"):
        with pytest.raises(ValueError, match="the second of two ReLUs in a row; build it with inplace=False"):
            explain(network, sample_images(1), method)
    assert explain(network, sample_images(1), "rise", masks=4).status == ["ok"]


@pytest.mark.parametrize(
    ("before", "verdict", "words"),
    [
        (lambda x: 0 * x, "doubtful", "zero everywhere, so that maps are flat"),
        (lambda x: (x - x).sqrt() + x, "doubtful", "NaN"),
        # Logits that differ between images although no gradient does are rounded: a trained mask would be that of its penalties alone.
        (torch.sign, "refused", "zero everywhere, and the logits differ between images"),
    ],
    ids=["constant", "square root of 0", "sign"],
)
def test_a_gradient_that_gives_no_map_is_doubtful_or_refused(before: Callable[[Tensor], Tensor], verdict: str, words: str) -> None:
    finding = check_gradient(Classifier.from_module(Wrapped(before=before)), sample_images(2))
    assert (finding.verdict, words in finding.text) == (verdict, True), finding.text


def test_a_constant_logit_that_is_the_highest_is_no_rounding() -> None:
    class YesOrNo(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            z = images.mean((1, 2, 3))[:, None]
            return torch.cat([torch.zeros_like(z), z - 1e3], 1)  # no is the answer for every image

    finding = check_gradient(Classifier.from_module(YesOrNo()), sample_images(2))
    assert (finding.subject, finding.verdict) == ("values", "doubtful")


def test_a_backward_that_is_wrong_for_one_image_is_refused() -> None:
    norm = nn.BatchNorm2d(3)
    norm.running_var = torch.tensor([0.5, 1.0, 2.0])
    # Tokens as a map: torch's backward of batch normalisation in evaluation mode is wrong for one such image.
    network = nn.Sequential(Wrapped(before=lambda x: norm.eval()(x.flatten(2).mT.contiguous().mT.unflatten(2, x.shape[2:])).contiguous()))
    finding = check_gradient(Classifier.from_module(network), sample_images(2))
    right = check_gradient(Classifier.from_module(Wrapped(before=lambda x: norm(x.contiguous()))), sample_images(2))
    assert (finding.verdict, right.verdict) == ("refused", "ok")


@pytest.mark.parametrize("method", ["hdm", "gradient", "grad_cam", "deeplift", "full_grad", "rise"])
def test_inference_mode_changes_nothing(method: str) -> None:
    network, settings = mixed_state_network(), {"hdm": {"steps": 1}, "rise": {"masks": 4}}.get(method, {})
    expected = explain(network, sample_images(2), method, **settings)
    with torch.inference_mode():
        images = sample_images(2)
        inside = explain(network, images, method, **settings)
        measured = evaluate(network, images, inside.maps, inside.targets)
    outside = explain(network, images, method, **settings)
    assert torch.equal(inside.maps, expected.maps)
    assert torch.equal(outside.maps, expected.maps)
    assert torch.equal(measured.deletion, evaluate(network, sample_images(2), expected.maps, expected.targets).deletion)


# Findings are kept until the network changes


def test_a_network_is_checked_again_when_it_has_changed() -> None:
    calls: list[int] = []
    network = Wrapped(before=lambda x: [calls.append(len(x)), x][1])
    explain(network, sample_images(1), "gradient")
    first = len(calls)
    explain(network, sample_images(1), "gradient")
    assert len(calls) - first < first
    with torch.no_grad():
        network.network[-1].weight.mul_(2)
    again = len(calls)
    explain(network, sample_images(1), "gradient")
    assert len(calls) - again == first
    network.network.append(nn.Softmax(1))
    with pytest.raises(ValueError, match="probabilities"):
        explain(network, sample_images(1), "gradient")
