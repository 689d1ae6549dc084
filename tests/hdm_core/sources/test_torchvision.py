from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import torchvision

from hdm_core.classifier import Classifier
from hdm_core.sources import torchvision as module
from hdm_core.sources.torchvision import PACKAGED, load_state

MOBILENET = torchvision.models.MobileNet_V2_Weights.IMAGENET1K_V1
(FILE,) = PACKAGED


@dataclass
class Packaged:
    """File of an installed distribution."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    def locate(self) -> Path:
        return self.path


def install(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    monkeypatch.setattr(module.metadata, "files", lambda _distribution: [Packaged(path.parent / "README"), Packaged(path)])


def test_a_packaged_file_is_read_without_a_download(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(MOBILENET), "get_state_dict", lambda *_args, **_kwargs: pytest.fail("downloaded"))
    state = load_state(MOBILENET)
    assert state.keys() == torchvision.models.mobilenet_v2(weights=None).state_dict().keys()


def test_a_tampered_packaged_file_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    torch.save({"classifier.1.bias": torch.zeros(1000)}, tmp_path / FILE)
    install(monkeypatch, tmp_path / FILE)
    with pytest.raises(ValueError, match="checksum differs"):
        load_state(MOBILENET)
    with pytest.raises(ValueError, match="checksum differs"):
        Classifier.from_torchvision("mobilenet_v2", weights="IMAGENET1K_V1")


@pytest.mark.parametrize("missing", ["distribution", "file", "files"])
def test_without_the_package_torchvision_downloads_and_checks(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    def files(name: str) -> list[Packaged] | None:
        if missing == "distribution":
            raise module.metadata.PackageNotFoundError(name)
        return None if missing == "files" else [Packaged(Path("another.pth"))]

    asked: list[dict[str, object]] = []
    monkeypatch.setattr(module.metadata, "files", files)
    monkeypatch.setattr(type(MOBILENET), "get_state_dict", lambda _self, **options: asked.append(options) or {"a": torch.ones(1)})
    assert load_state(MOBILENET) == {"a": torch.ones(1)}
    assert asked == [{"progress": False, "check_hash": True, "weights_only": True}]


def test_a_file_in_no_package_is_downloaded_by_torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    other = torchvision.models.ResNet18_Weights.IMAGENET1K_V1
    monkeypatch.setattr(type(other), "get_state_dict", lambda _self, **_options: {"b": torch.ones(2)})
    assert torch.equal(load_state(other)["b"], torch.ones(2))


def test_nothing_is_unpickled_but_tensors(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, ...]:
            return (pytest.fail, ("ran code of a weights file",))

    torch.save({"a": Trap()}, tmp_path / FILE)
    install(monkeypatch, tmp_path / FILE)
    digest = module.hashlib.sha256((tmp_path / FILE).read_bytes()).hexdigest()
    monkeypatch.setitem(PACKAGED, FILE, (PACKAGED[FILE][0], digest))
    with pytest.raises(Exception, match="Weights only load failed"):
        load_state(MOBILENET)
