"""Validation of the files in infra/ against the schemas of the tools that read them.

Nothing is applied: no container engine, Kubernetes or cloud is needed.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import promql_parser
import pytest
import ray
import yaml
from prefect.server.schemas.actions import WorkPoolCreate
from prefect.utilities.templating import apply_values, find_placeholders
from ray.autoscaler._private.util import prepare_config, validate_config

from pipeline.config.load import load_config
from pipeline.monitoring import telemetry
from tests.support.paths import ROOT

INFRA = ROOT / "infra"
BIN = Path(sys.executable).parent
KUBERNETES = "1.37"


def read(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((INFRA / name).read_text())
    return loaded


def locked(package: str) -> str:
    """Return a package's version in requirements.lock."""
    return re.findall(rf"^{package}==(\S+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE)[0]


# Docker


def test_the_dockerfile_passes_hadolint_and_takes_only_what_git_has() -> None:
    linted = subprocess.run([BIN / "hadolint", INFRA / "docker/Dockerfile"], capture_output=True, text=True)
    assert linted.returncode == 0, linted.stdout
    sources = re.findall(r"^COPY (?!--from)(?:--\S+ )*(.+) \S+$", (INFRA / "docker/Dockerfile").read_text(), re.MULTILINE)
    allowed = (ROOT / ".dockerignore").read_text().splitlines()
    for source in " ".join(sources).split():
        assert (ROOT / source).exists()
        assert f"!{source}" in allowed


@pytest.mark.parametrize("name", ["compose.yaml", "compose.gpu.yaml"])
def test_compose_files_follow_the_specification(name: str) -> None:
    checked = subprocess.run(
        [BIN / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", INFRA / name], capture_output=True, text=True
    )
    assert checked.returncode == 0, checked.stdout


def test_the_services_know_each_other_and_no_secret_is_written_down() -> None:
    services = read("compose.yaml")["services"]
    text = (INFRA / "compose.yaml").read_text()
    for service in services.values():
        assert service.get("depends_on", {}).keys() <= services.keys()
        for needed, how in service.get("depends_on", {}).items():
            assert how["condition"] != "service_healthy" or "healthcheck" in services[needed]
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:")
        if service["image"].startswith("prefecthq"):
            assert service["image"] == f"prefecthq/prefect:{locked('prefect')}-python3.11"
    example = re.findall(r"^(\w+)=$", (INFRA / ".env.example").read_text(), re.MULTILINE)
    assert set(re.findall(r"\$\{(\w+)", text)) == set(example)
    (scraped,) = read("prometheus/prometheus.yml")["scrape_configs"]
    assert set(scraped["dns_sd_configs"][0]["names"]) == {name for name in services if "--metrics-export-port=8080" in str(services[name])}


# Clouds


def test_ray_takes_the_cluster_file() -> None:
    prepared = prepare_config(read("ray/cluster.yaml"))
    validate_config(prepared)
    spot = prepared["available_node_types"]["gpu_spot"]
    assert spot["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert spot["resources"]["GPU"] == 1
    assert prepared["available_node_types"]["head"]["resources"]["CPU"] == 0


def _object(required: list[str], **properties: Any) -> dict[str, Any]:
    return {"type": "object", "required": required, "properties": properties, "additionalProperties": False}


# The used fields of ray.io/v1, from KubeRay's API reference (https://ray-project.github.io/kuberay/reference/api/). The definitions
# themselves are a megabyte, most of it Kubernetes' pods, which are checked against Kubernetes' own schema.
_COUNT = {"type": "integer", "minimum": 0}
_START = {"type": "object", "additionalProperties": {"type": "string"}}
_CLUSTER = _object(
    ["headGroupSpec", "rayVersion"],
    rayVersion={"type": "string"},
    authOptions=_object(["mode"], mode={"enum": ["disabled", "token"]}),
    enableInTreeAutoscaling={"type": "boolean"},
    autoscalerOptions=_object([], idleTimeoutSeconds=_COUNT, upscalingMode={"enum": ["Default", "Aggressive", "Conservative"]}),
    headGroupSpec=_object(["template"], rayStartParams=_START, template={"type": "object"}),
    workerGroupSpecs={
        "type": "array",
        "items": _object(
            ["groupName", "template", "minReplicas", "maxReplicas"],
            groupName={"type": "string"},
            replicas=_COUNT,
            minReplicas=_COUNT,
            maxReplicas=_COUNT,
            rayStartParams=_START,
            template={"type": "object"},
        ),
    },
)
_JOB = _object(
    ["entrypoint", "rayClusterSpec"],
    entrypoint={"type": "string"},
    shutdownAfterJobFinishes={"type": "boolean"},
    ttlSecondsAfterFinished=_COUNT,
    backoffLimit=_COUNT,
    rayClusterSpec=_CLUSTER,
)


@pytest.mark.parametrize(("name", "kind", "schema"), [("raycluster", "RayCluster", _CLUSTER), ("rayjob", "RayJob", _JOB)])
def test_kuberay_manifests(name: str, kind: str, schema: dict[str, Any]) -> None:
    manifest = read(f"kuberay/{name}.yaml")
    assert (manifest["apiVersion"], manifest["kind"]) == ("ray.io/v1", kind)
    jsonschema.validate(manifest["spec"], schema)
    cluster = manifest["spec"].get("rayClusterSpec", manifest["spec"])
    assert cluster["rayVersion"] == locked("ray")
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, **group["template"]}
        kubernetes_validate.validate(pod, KUBERNETES, strict=True)
        assert pod["spec"]["securityContext"]["runAsNonRoot"]


def test_the_job_asks_for_a_run_that_there_is() -> None:
    words = read("kuberay/rayjob.yaml")["spec"]["entrypoint"].split()
    assert words[:3] == ["hdm", "run", "cub-full"]
    changes = dict(words[place + 1].split("=", 1) for place, word in enumerate(words) if word == "--set")
    config = load_config(
        "cub-full", {key: yaml.safe_load(value) for key, value in changes.items()} | {"dataset.root": "s3://hdm/CUB_200_2011"}
    )
    assert (config.compute.gpus_per_worker, config.compute.ray_address) == (1, "auto")


def test_prefect_makes_a_job_of_the_work_pools_template() -> None:
    template = json.loads((INFRA / "prefect/kubernetes-base-job-template.json").read_text())
    pool = WorkPoolCreate(name="hdm", type="kubernetes", base_job_template=template)
    properties = template["variables"]["properties"]
    assert {found.name for found in find_placeholders(json.dumps(template["job_configuration"]))} == properties.keys()
    defaults = {name: about["default"] for name, about in properties.items() if "default" in about}
    # Values that Prefect's worker inserts; it turns the command and the environment into lists.
    given = {"name": "hdm", "labels": {"a": "b"}, "command": ["prefect", "flow-run", "execute"], "env": [{"name": "A", "value": "1"}]}
    job = apply_values(pool.base_job_template["job_configuration"]["job_manifest"], defaults | given)
    kubernetes_validate.validate(job, KUBERNETES, strict=True)
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert defaults["ray_address"] == f"{read('kuberay/raycluster.yaml')['metadata']['name']}-head-svc:6379"
    assert defaults["ray_address"] in container["command"][2]


# Grafana


def expressions() -> Iterator[tuple[str, Any]]:
    """Yield the title and the parsed expressions of each panel."""
    for panel in json.loads((INFRA / "grafana/hdm.json").read_text())["panels"]:
        for target in panel["targets"]:
            yield panel["title"], promql_parser.parse(target["expr"])


@cache
def rays_own() -> str:
    """Return the sources of Ray's dashboards and agent, which contain the names of Ray's metrics."""
    return "".join(path.read_text() for path in (Path(ray.__file__).parent / "dashboard/modules").rglob("*.py"))


def test_every_panel_shows_metrics_and_labels_that_there_are() -> None:
    endings = {"Counter": ["_total"], "Gauge": [""], "Histogram": ["_bucket", "_sum", "_count"]}
    ours = {f"ray_{name}{ending}": labels for name, (kind, _, labels) in telemetry.METRICS.items() for ending in endings[kind]}
    shown = set()
    for title, expression in expressions():
        text = str(expression)
        names = set(re.findall(r"\bray_\w+", text))
        assert names, title
        for name in names:
            if name.startswith("ray_hdm_"):
                assert name in ours, title
                grouped = {label.strip() for group in re.findall(r"by \(([^)]*)\)", text) for label in group.split(",")}
                assert grouped | set(re.findall(r"(\w+)!?=", text)) <= {*ours[name], "le", "NodeAddress"}, title
                shown.add(name.removesuffix("_total").removesuffix("_bucket"))
            else:
                assert name.removeprefix("ray_") in rays_own(), title
    assert shown == {f"ray_{name}" for name in telemetry.METRICS}


def test_operations_names_every_metric() -> None:
    page = (ROOT / "docs/operations.md").read_text()
    listed = set(re.findall(r"^\| `ray_(hdm_\w+?)(?:_total)?` \|", page, re.MULTILINE))
    assert listed == telemetry.METRICS.keys()
