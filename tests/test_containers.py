"""Containers and pools: what can be checked of them where no container engine is.

The schemas in tests/schemas are those of the Compose specification (from docker-compose 1.29.2) and
of a Kubernetes 1.37 Job (from kubernetes-validate 1.37.0, cut to what a Job refers to).
"""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from prefect.client.schemas.actions import DeploymentCreate, WorkPoolCreate
from prefect.utilities.templating import apply_values
from prefect.workers.base import BaseJobConfiguration

from tests.test_docs import ROOT

DEPLOYMENTS = ROOT / "deployments"
DOCKER = DEPLOYMENTS / "docker"
SCHEMAS = ROOT / "tests" / "schemas"
ANY_ID = "00000000-0000-0000-0000-000000000000"


def schema(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((SCHEMAS / name).read_text())
    return found


def template(kind: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((DEPLOYMENTS / kind / "pool.json").read_text())
    return found


def instructions() -> list[tuple[str, str]]:
    """Return (instruction, rest) of the Dockerfile, lines that go on joined."""
    text = (DOCKER / "Dockerfile").read_text()
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in joined.splitlines()]


# --- images


def test_the_image_is_made_from_files_that_are_there_and_not_ignored() -> None:
    copied = [
        source
        for name, rest in instructions()
        if name == "COPY" and "--from" not in rest
        for source in shlex.split(rest)[:-1]
    ]
    assert all((ROOT / source).exists() for source in copied)
    ignore = (DOCKER / "Dockerfile.dockerignore").read_text().splitlines()
    kept = {line.removeprefix("!") for line in ignore if line.startswith("!")}
    assert "*" in ignore, "nothing else reaches the builder: no lake, no .env"
    assert kept == set(copied)
    # What the package is built from has to be among them.
    build = (ROOT / "pyproject.toml").read_text()
    included = re.findall(r'^"(deployments/\S+)" = ', build, re.MULTILINE)
    assert set(included) <= kept
    assert set(re.findall(r"packages = \[(.*)\]", build)[0].replace('"', "").split(", ")) <= kept


def test_both_images_have_the_versions_of_the_constraints_and_run_as_a_user() -> None:
    runs = [rest for name, rest in instructions() if name == "RUN"]
    assert any("--constraint constraints.txt" in run for run in runs)
    assert ("ARG", "TORCH_INDEX=https://download.pytorch.org/whl/cpu") in instructions()
    assert any("${TORCH_INDEX:+--extra-index-url" in run for run in runs), "empty: PyPI's, CUDA"
    names = [name for name, _ in instructions()]
    assert "USER" in names
    assert "ENTRYPOINT" not in names, "a worker says what runs"
    python = re.findall(r"^FROM python:(\S+)-slim", (DOCKER / "Dockerfile").read_text(), re.M)
    assert set(python) == {"3.11"}, "the version that the release was tried on"


# --- compose


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    """The services, as a parser of YAML gives them."""
    loaded: dict[str, Any] = yaml.safe_load((DOCKER / "compose.yaml").read_text())
    return loaded


def test_the_compose_file_keeps_to_its_specification(compose: dict[str, Any]) -> None:
    specification = schema("compose.json")
    specification["properties"]["name"] = {"type": "string"}  # came after this version of it
    jsonschema.Draft201909Validator(specification).validate(compose)
    services = compose["services"]
    for name, service in services.items():
        for needed, how in service.get("depends_on", {}).items():
            assert needed in services, name
            if how["condition"] == "service_healthy":
                assert "healthcheck" in services[needed]
        for volume in service.get("volumes", ()):
            source = volume.partition(":")[0]
            assert source in compose["volumes"] or source.startswith("${"), volume
    build = services["prefect"]["build"]
    assert (DOCKER / build["context"]).resolve() == ROOT
    assert (ROOT / build["dockerfile"]).is_file()


def test_the_services_ask_for_a_password_and_listen_on_this_machine_alone(
    compose: dict[str, Any],
) -> None:
    text = (DOCKER / "compose.yaml").read_text()
    assert "${RECSYS_PASSWORD:?" in text
    assert set(re.findall(r"\$\{(\w+)", text)) == {
        "RECSYS_PASSWORD", "RECSYS_IMAGE", "RECSYS_SOURCE", "RECSYS_SOURCE_PATTERN", "TORCH_INDEX",
    }  # fmt: skip
    ports = [port for service in compose["services"].values() for port in service.get("ports", ())]
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_what_the_setup_runs_is_what_the_deployments_say(compose: dict[str, Any]) -> None:
    script = compose["services"]["setup"]["command"][-1].replace("$$", "$")
    python = re.search(r"<<'END'\n(.*?)\nEND\n", script, re.DOTALL)
    assert python
    compile(python[1], "setup", "exec")
    said = (DEPLOYMENTS / "prefect.yaml").read_text()
    for command in (
        "prefect work-pool create recsys --type process",
        "prefect work-queue create train --pool recsys --limit 1",
        "prefect work-queue set-concurrency-limit default 1 --pool recsys",
    ):
        assert command in said
        assert command in script


# --- pools


@pytest.mark.parametrize("kind", ["docker", "kubernetes"])
def test_prefect_takes_the_template_and_refuses_wrong_job_variables(kind: str) -> None:
    pool = WorkPoolCreate(name="recsys", type=kind, base_job_template=template(kind))
    deployment = DeploymentCreate(name="daily", flow_id=ANY_ID, job_variables=gpu(kind))
    deployment.check_valid_configuration(pool.base_job_template)
    wrong = {"kubernetes": {"gpus": "one"}, "docker": {"device_requests": "all"}}[kind]
    with pytest.raises(jsonschema.ValidationError):
        DeploymentCreate(
            name="daily", flow_id=ANY_ID, job_variables=wrong
        ).check_valid_configuration(pool.base_job_template)


def gpu(kind: str) -> dict[str, Any]:
    text = yaml.safe_load((DEPLOYMENTS / "gpu.yaml").read_text())
    variables: dict[str, Any] = text[f"{kind}_training"]["job_variables"]
    assert variables.keys() <= template(kind)["variables"]["properties"].keys()
    return variables


def rendered(kind: str, variables: dict[str, Any]) -> dict[str, Any]:
    """Render a template as `from_template_and_values` of a worker does, without an API."""
    run = {"command": "prefect flow-run execute", "name": "nightly", "labels": {"app": "recsys"}}
    properties = template(kind)["variables"]["properties"]
    defaults = BaseJobConfiguration._get_base_config_defaults(properties)
    made = apply_values(template(kind)["job_configuration"], {**defaults, **run, **variables})
    assert isinstance(made, dict)
    return made


@pytest.mark.parametrize("has_gpu", [False, True])
def test_a_kubernetes_job_is_one(has_gpu: bool) -> None:
    made = rendered("kubernetes", gpu("kubernetes") if has_gpu else {})
    job = made["job_manifest"]
    # The worker itself splits the command, and writes variables as a list.
    container = job["spec"]["template"]["spec"]["containers"][0]
    container["args"] = shlex.split(container["args"])
    variables = container.get("env") or {}
    container["env"] = [{"name": name, "value": value} for name, value in variables.items()]
    jsonschema.Draft202012Validator(schema("kubernetes-job.json")).validate(job)
    assert container["resources"]["limits"]["nvidia.com/gpu"] == int(has_gpu)
    assert container["image"] == ("recsys:cuda" if has_gpu else "recsys:cpu")
    assert "{{" not in json.dumps(job)
    assert not job["spec"]["backoffLimit"], "Prefect tries again, not Kubernetes"


def test_a_container_of_a_docker_pool_gets_its_gpu() -> None:
    made = rendered("docker", gpu("docker"))
    (request,) = made["container_create_kwargs"]["device_requests"]
    assert request == {"Driver": "nvidia", "Count": 1, "Capabilities": [["gpu"]]}
    assert "{{" not in json.dumps(made)
    assert rendered("docker", {})["container_create_kwargs"] == {"device_requests": []}


def test_the_lines_for_a_gpu_pool_fit_into_the_deployments() -> None:
    """They stand in place of two lines of prefect.yaml."""
    text = (DEPLOYMENTS / "prefect.yaml").read_text()
    lines = (DEPLOYMENTS / "gpu.yaml").read_text()
    named = yaml.safe_load(lines)
    definitions = yaml.safe_load(text)["definitions"]
    assert named["lists"]["name"] == definitions["lists"]["name"]
    for kind in ("kubernetes", "docker"):
        training = named[f"{kind}_training"]
        assert training["work_queue_name"] == definitions["training"]["work_queue_name"]
        assert training["job_variables"]["env"]["RECSYS_DEVICE"] == "cuda"
    assert Path(DEPLOYMENTS / "README.md").read_text().count("containers.md")
