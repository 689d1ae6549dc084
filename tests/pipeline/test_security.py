"""Promises of SECURITY.md about code and configuration; leaks of a whole run are tested in test_corpus.py."""

from __future__ import annotations

import ast
import io
import os
import pickle
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image
from prefect.settings import PREFECT_SERVER_API_HOST

from pipeline.classifiers.load import load_classifier
from pipeline.config.load import load
from pipeline.datasets import list_samples
from pipeline.datasets.images import UnreadableError, read_image
from pipeline.datasets.label_tables import read_columns
from pipeline.datasets.manifest import ManifestConfig
from pipeline.datasets.root import Root
from pipeline.errors import InputError, RunError, one_line
from pipeline.redaction import redact
from pipeline.runs import RunStore
from pipeline.training.config import TrainConfig
from tests.support.paths import ROOT
from tests.support.plans import configuration, mapping, refused
from tests.support.trainings import training_config

SECRET = "hunter2/aB+cD"
URLS = [f"s3://AKIAPLANTED:{SECRET}@bucket", f"https://ann:{SECRET}@host/x", f"https://{SECRET.replace('/', '')}@host/x"]
QUERIES = [f"https://host/x?{name}={SECRET}" for name in ("token", "X-Amz-Signature", "sig", "api_key", "Password")]


# No code from outside


def calls() -> Iterator[tuple[str, str, dict[str, str]]]:
    """List every call in the packages: place, function, and keywords as written."""
    for package in ("hdm_core", "pipeline", "flows"):
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call):
                    keywords = {keyword.arg or "**": ast.unparse(keyword.value) for keyword in node.keywords}
                    yield f"{path.relative_to(ROOT)}:{node.lineno}", ast.unparse(node.func), keywords


FORBIDDEN = {
    *(f"{module}.{name}" for module in ("pickle", "cloudpickle", "dill", "marshal", "joblib") for name in ("load", "loads", "Unpickler")),
    *("yaml.load", "yaml.load_all", "yaml.full_load", "yaml.unsafe_load", "np.load", "numpy.load", "pd.read_pickle", "shelve.open"),
    *("eval", "exec", "os.system", "ElementTree.parse", "ElementTree.fromstring"),
}


def test_nothing_is_loaded_that_could_be_code() -> None:
    found = list(calls())
    assert [where for where, name, _ in found if name in FORBIDDEN] == []
    assert [where for where, name, given in found if name == "torch.load" and given.get("weights_only") != "True"] == []
    assert [where for where, _, given in found if "allow_pickle" in given or given.get("shell") == "True"] == []
    # A program of torch.export may contain code: it is loaded in one place, which documents it, as SECURITY.md does.
    assert {where.split(":")[0] for where, name, _ in found if name == "torch.export.load"} == {"hdm_core/sources/exported.py"}


def test_downloads_are_weights_only() -> None:
    assert [where for where, name, given in calls() if name.endswith(".get_state_dict") and given.get("weights_only") != "True"] == []


def test_every_image_is_opened_by_a_few_formats_and_with_a_limit_of_pixels() -> None:
    assert [where for where, name, given in calls() if name == "Image.open" and "formats" not in given] == []
    assert Image.MAX_IMAGE_PIXELS is not None
    assert not [path for path in (ROOT / "pipeline").rglob("*.py") if "MAX_IMAGE_PIXELS =" in path.read_text()]


class Owned:
    """An object that creates a folder when it is unpickled."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.place),)


@pytest.mark.parametrize("name", ["model.pth", "model.safetensors"])
def test_a_checkpoint_that_is_a_pickle_runs_nothing(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(pickle.dumps(Owned(tmp_path / "owned"), protocol=2))
    section = {"source": "checkpoint", "path": str(tmp_path / name), "arch": "squeezenet1_1", "classes": 3}
    message = refused(lambda: load_classifier(configuration(classifier=section).classifier, 0))
    assert name in message
    assert not (tmp_path / "owned").exists()


# Annotations from outside


@pytest.mark.parametrize(
    "path",
    [
        *("../a.png", "/etc/passwd", "file:///etc/passwd", "local:///etc/passwd", "simplecache::file:///etc/passwd", "reference://x"),
        *("zip://x::file:///a.zip", "https://a/b::file:///etc/passwd", "ssh://host/etc/passwd", "github://org:repo@/x"),
        *URLS,
        *QUERIES,
    ],
)
def test_a_manifest_that_reaches_out_is_refused_in_one_line(tmp_path: Path, path: str) -> None:
    for name, write in (("m.csv", pa.csv.write_csv), ("m.parquet", pq.write_table)):
        write(pa.table({"path": ["good.png", path]}), tmp_path / name)
        message = refused(lambda name=name: list_samples(ManifestConfig(kind="manifest", root=str(tmp_path / name)), {}))
        assert f"{name}, row 2: " in message
        assert SECRET not in message


def test_what_a_manifest_says_else_is_text(tmp_path: Path) -> None:
    odd = ["=cmd|' /C calc'!A0.png", "a\0b.png", "<b>.png", "$(id).png", "..\\..\\up.png"]
    pq.write_table(pa.table({"path": odd, "class_name": odd, "split": odd}), tmp_path / "m.parquet")
    samples = list_samples(ManifestConfig(kind="manifest", root=str(tmp_path / "m.parquet")), {})
    assert [sample.image_id for sample in samples] == odd
    for sample in samples:
        with pytest.raises(UnreadableError, match="cannot read"):
            read_image(sample, {})


def workbook(sheet: bytes) -> bytes:
    """Write the smallest file that openpyxl accepts as a workbook."""
    buffer = io.BytesIO()
    kind = "application/vnd.openxmlformats-officedocument.spreadsheetml"
    base = "http://schemas.openxmlformats.org"
    main = f'xmlns="{base}/spreadsheetml/2006/main" xmlns:r="{base}/officeDocument/2006/relationships"'
    relation = f"{base}/officeDocument/2006/relationships"
    parts = {
        "[Content_Types].xml": f'<Types xmlns="{base}/package/2006/content-types"><Override PartName="/xl/workbook.xml" '
        f'ContentType="{kind}.sheet.main+xml"/><Override PartName="/xl/s.xml" ContentType="{kind}.worksheet+xml"/></Types>',
        "_rels/.rels": f'<Relationships xmlns="{base}/package/2006/relationships"><Relationship Id="r1" Type="{relation}/officeDocument" '
        'Target="xl/workbook.xml"/></Relationships>',
        "xl/workbook.xml": f'<workbook {main}><sheets><sheet name="a" sheetId="1" r:id="r1"/></sheets></workbook>',
        "xl/_rels/workbook.xml.rels": f'<Relationships xmlns="{base}/package/2006/relationships"><Relationship Id="r1" '
        f'Type="{relation}/worksheet" Target="s.xml"/></Relationships>',
        "xl/s.xml": sheet.replace(b"MAIN", main.encode()),
    }
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for name, text in parts.items():
            file.writestr(name, text)
    return buffer.getvalue()


ROW = b"<row r='1'><c r='A1' t='inlineStr'><is><t>%s</t></is></c></row>"
SHEET = b"<worksheet MAIN><sheetData>%s</sheetData></worksheet>"
LAUGHS = b"".join(b'<!ENTITY e%d "%s">' % (i, b"&e%d;" % (i - 1) * 10 if i else b"x" * 100) for i in range(9))


@pytest.mark.parametrize(
    ("sheet", "words"),
    [
        (SHEET % (ROW % (b"x" * 3_000_000)), "unpacks to 3 MiB"),
        (b"<!DOCTYPE a [" + LAUGHS + b"]>" + SHEET % (ROW % b"&e8;"), "cannot be read"),
    ],
    ids=["zip", "entities"],
)
def test_a_table_that_is_a_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sheet: bytes, words: str) -> None:
    monkeypatch.setattr("pipeline.datasets.label_tables._MOST_BYTES", 1 << 20)
    (tmp_path / "good.xlsx").write_bytes(workbook(SHEET % (ROW % b"name")))
    root = Root.at(str(tmp_path), {}, "")
    assert read_columns(root, "good.xlsx", ["name"]) == []
    (tmp_path / "bomb.xlsx").write_bytes(workbook(sheet))
    assert words in refused(lambda: read_columns(root, "bomb.xlsx", ["name"]))


# Secrets


@pytest.mark.parametrize("url", URLS + QUERIES)
@pytest.mark.parametrize("key", ["output", "dataset.root", "classifier.path", "storage.endpoint_url", "storage.client_kwargs.proxy"])
def test_a_url_with_a_secret_is_refused_and_not_repeated(url: str, key: str) -> None:
    changes = {key: url, "classifier.source": "checkpoint", "classifier.arch": None, "classifier.resize": None}
    message = refused(lambda: configuration({"classifier.path": "somewhere", **changes}))
    assert f"{key} is a URL with a secret in it" in message
    assert SECRET not in message


@pytest.mark.parametrize(
    "url", ["s3://bucket/a@b", "http://127.0.0.1:9000", "http://[::1]:9000/x", "abfs://container@account/x", "https://h/x?size=1"]
)
def test_a_url_without_a_secret_is_taken(url: str) -> None:
    assert configuration(output=url).output == url
    assert redact(f"{url}: and more") == f"{url}: and more"


def test_a_training_and_a_manifests_row_are_no_way_around(tmp_path: Path) -> None:
    message = refused(lambda: load({**training_config(tmp_path), "output": URLS[0]}, {}, TrainConfig, {}))
    assert "output is a URL with a secret in it" in message
    assert SECRET not in message


@pytest.mark.parametrize("url", URLS + QUERIES)
def test_no_error_repeats_a_secret_of_a_url(url: str) -> None:
    for error in (InputError(f"{url}: no such folder"), RunError(f"cannot reach {url}, says '{url}'")):
        assert SECRET not in str(error)
        assert "***" in str(error)
    assert SECRET not in one_line(OSError(f"401, message='Unauthorized', url='{url}'"))
    assert SECRET not in refused(lambda: RunStore.open(url.replace("https", "nosuch").replace("s3", "nosuch")))


def test_an_error_is_text_that_a_terminal_only_shows() -> None:
    said = one_line(OSError("a\n\x1b]0;owned\x07\udcff\u202ereversed"))
    assert said == r"a \x1b]0;owned\x07\udcff\u202ereversed"


def test_broken_yaml_is_refused_without_its_text(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(f"storage: {{key: '{SECRET}\n")
    message = refused(lambda: load(str(tmp_path / "a.yaml"), {}, TrainConfig, {}))
    assert "no valid YAML: " in message
    assert "line 2" in message
    assert SECRET not in message


@pytest.mark.server
def test_prefect_keeps_no_secret_of_a_configuration(tmp_path: Path) -> None:
    """Run the flow with a server of its own: no secret in its database, its logs and its output."""
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(mapping(output=URLS[0], dataset={"kind": "demo"})))
    home = tmp_path / "prefect"
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    env = kept | {"PREFECT_HOME": str(home), "PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1", "HF_TOKEN": "hf_planted"}
    command = [sys.executable, "-m", "flows", str(tmp_path / "a.yaml")]
    ended = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=240)
    assert ended.returncode == 1
    said = ended.stdout + ended.stderr
    assert "output is a URL with a secret in it" in said
    kept_files = [path for path in home.rglob("*") if path.is_file()]
    assert any(path.name.startswith("prefect.db") for path in kept_files)
    for secret in (SECRET, "hf_planted"):
        assert secret not in said
        assert not [str(path) for path in kept_files if secret.encode() in path.read_bytes()]


# Who may connect


def test_prefect_listens_on_loopback_and_nothing_here_opens_a_door() -> None:
    assert PREFECT_SERVER_API_HOST.value() == "127.0.0.1"
    texts = [
        path
        for folder in ("hdm_core", "pipeline", "flows", "infra")
        for path in (ROOT / folder).rglob("*")
        if path.suffix in {".py", ".yaml"}
    ]
    for path in [*texts, ROOT / "Makefile", ROOT / "prefect.yaml"]:
        text = path.read_text()
        assert not re.search(r"AUTH_MODE[\"']?\s*[:=]\s*[\"']?disabled", text), path


# Dependencies


@pytest.mark.parametrize(
    ("answer", "code", "words"),
    [
        ('[{"name": "a", "version": "1", "vulns": []}]', 0, "1 of 1 packages audited, 0 vulnerable"),
        ('[{"name": "a", "version": "1", "vulns": [{"id": "CVE-1", "fix_versions": ["2"]}]}]', 1, "a 1 has CVE-1; fixed in 2"),
        ('[{"name": "a", "skip_reason": "not found"}]', 0, "the dependencies were not audited"),
        ("", 0, "the dependencies were not audited"),
    ],
    ids=["well", "vulnerable", "unknown", "away"],
)
def test_the_audit_fails_for_a_vulnerability_and_for_nothing_else(tmp_path: Path, answer: str, code: int, words: str) -> None:
    """Replace pip-audit by a script: its service may be unreachable from the tests."""
    (tmp_path / "pip_audit.py").write_text(f"print('{{\"dependencies\": {answer}}}')")
    env = os.environ | {"PYTHONPATH": str(tmp_path)}
    ended = subprocess.run([sys.executable, ROOT / ".ci/audit"], cwd=ROOT, env=env, capture_output=True, text=True, timeout=60)
    assert (ended.returncode, words in ended.stdout) == (code, True), ended.stdout + ended.stderr
