"""The templates say what the tools they are for accept, and none of them opens a door."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import deploy_commands as templates
import jsonschema
import kubernetes_validate
import pytest
import typer
import yaml

from tsdf_ray.cli import app

SCHEMA = json.loads(Path(__file__).with_name("kuberay.schema.json").read_text())
KUBERNETES = "1.37"
"""Version of the schemas; everything the templates use is older by far."""
POD = ("rayClusterSpec", "headGroupSpec", "template", "spec")
PAGES = [templates.ROOT / "docs" / "cluster.md", templates.ROOT / "README.md"]


def names(paths: list[Path]) -> list[str]:
    return [str(path.relative_to(templates.ROOT)) for path in paths]


def documents(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text(encoding="utf-8")))


def clusters() -> list[tuple[str, dict[str, Any]]]:
    """Every RayCluster spec, by file."""
    found = []
    for path in templates.YAML:
        for document in documents(path):
            if document["kind"] == "RayCluster":
                found.append((path.name, document["spec"]))
            elif document["kind"] == "RayJob":
                found.append((path.name, document["spec"]["rayClusterSpec"]))
    return found


def test_nothing_is_missing() -> None:
    kinds = {document["kind"] for path in templates.YAML for document in documents(path)}
    assert kinds == {"RayJob", "RayCluster", "NetworkPolicy", "PersistentVolumeClaim"}
    assert [path.name for path in templates.SCRIPTS] == ["start-head.sh", "start-worker.sh", "tsdf-ray.sbatch"]


@pytest.mark.parametrize("path", templates.SCRIPTS, ids=names(templates.SCRIPTS))
def test_scripts_are_bash(path: Path) -> None:
    subprocess.run(["bash", "-n", path], check=True, timeout=20)
    if shutil.which("shellcheck"):
        subprocess.run(["shellcheck", path], check=True, timeout=60)
    assert "set -euo pipefail" in path.read_text()


def follow_the_schemas(document: dict[str, Any]) -> None:
    """Kubernetes' own objects, and pods within KubeRay's, are held against Kubernetes' published schemas, strictly."""
    if document["kind"] not in SCHEMA["$defs"]:
        kubernetes_validate.validate(document, KUBERNETES, strict=True)
        return
    # One kind's errors, not those of all that it is not.
    kind = {"$ref": f"#/$defs/{document['kind']}", "$defs": SCHEMA["$defs"]}
    jsonschema.Draft202012Validator(kind).validate(document)
    cluster = document["spec"].get("rayClusterSpec", document["spec"])
    for group in [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]:
        pod = {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "x"}, "template": group["template"]}
        kubernetes_validate.validate(pod, KUBERNETES, strict=True)


@pytest.mark.parametrize("path", templates.YAML, ids=names(templates.YAML))
def test_objects_follow_the_schemas(path: Path) -> None:
    for document in documents(path):
        follow_the_schemas(document)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("backofflimit",), 3),
        (("submissionMode",), "Http"),
        (("rayClusterSpec", "authOptions"), {"mode": "on"}),
        (("rayClusterSpec", "headGroupSpec", "rayStartParams", "num-cpus"), 0),
        ((*POD, "restartpolicy"), "Never"),
        ((*POD, "terminationGracePeriodSeconds"), "120"),
        ((*POD, "securityContext", "runAsNonRoot"), "yes"),
        ((*POD, "volumes", 0, "persistentVolumeClaim"), {"claim": "runs"}),
        ((*POD, "containers", 0, "volumeMounts", 0, "path"), "/runs"),
        ((*POD, "containers", 0, "name"), None),
    ],
)
def test_the_schemas_refuse(place: tuple[Any, ...], value: object) -> None:
    (job, _) = documents(templates.DEPLOY / "kuberay" / "rayjob.yaml")
    follow_the_schemas(job)
    inner = job["spec"]
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    with pytest.raises((jsonschema.ValidationError, kubernetes_validate.ValidationError)):
        follow_the_schemas(job)


@pytest.mark.parametrize("path", templates.TEMPLATES, ids=names(templates.TEMPLATES))
def test_no_template_opens_a_door(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    code = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    assert not re.search(r"ray stop|pkill|killall|RAY_AUTH_MODE[=: ]+.?disabled", text)
    # No token is written down: it is made where it is used.
    assert not re.search(r"[0-9a-f]{32}|auth_token: |stringData", code)
    if "ray start --head" in code:
        assert "--dashboard-host=127.0.0.1" in code
    if "ray start" in code:
        assert re.search(r"\bRAY_AUTH_MODE=token\b", code)
        for listens in re.finditer(r"ray start --", code):
            assert "RAY_AUTH_MODE=token" in code[: listens.start()], "before anything listens"
    for made in re.finditer(r"/dev/urandom", code):
        subshell = code[code.rindex("(\n", 0, made.start()) : made.start()]
        assert subshell.split()[1:3] == ["umask", "077"]


@pytest.mark.parametrize(("file", "cluster"), clusters(), ids=[name for name, _ in clusters()])
def test_clusters_on_kubernetes(file: str, cluster: dict[str, Any]) -> None:
    assert cluster["authOptions"] == {"mode": "token", "secretName": "tsdf-ray-token"}
    assert cluster["rayVersion"] == pinned("ray")
    (claim,) = documents(templates.DEPLOY / "kuberay" / "runs-pvc.yaml")
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    for group in groups:
        pod = group["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["volumes"] == [
            {"name": "runs", "persistentVolumeClaim": {"claimName": claim["metadata"]["name"]}},
        ]
        assert pod["containers"][0]["volumeMounts"] == [{"name": "runs", "mountPath": "/runs"}]
    (worker,) = cluster["workerGroupSpecs"]
    limits = worker["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert int(limits["nvidia.com/gpu"]) >= 1
    host = cluster["headGroupSpec"]["rayStartParams"]["dashboard-host"]
    # KubeRay's operator must reach the dashboard of a RayJob; there a policy keeps everybody else away.
    assert host == ("0.0.0.0" if file == "rayjob.yaml" else "127.0.0.1")
    if host != "127.0.0.1":
        kinds = [document["kind"] for document in documents(templates.DEPLOY / "kuberay" / file)]
        assert "NetworkPolicy" in kinds


def pinned(package: str) -> str:
    lines = (templates.ROOT / "constraints.txt").read_text().splitlines()
    return next(line.split("==")[1] for line in lines if line.startswith(f"{package}=="))


def test_a_job_that_is_tried_again_goes_on() -> None:
    (job, _) = documents(templates.DEPLOY / "kuberay" / "rayjob.yaml")
    words = job["spec"]["entrypoint"].split()
    assert words[:2] == ["tsdf-ray", "play"]
    assert "--resume" in words
    assert job["spec"]["backoffLimit"] >= 1
    assert "jobId" not in job["spec"], "each try is a job of its own"
    assert int(yaml.safe_load(job["spec"]["runtimeEnvYAML"])["env_vars"]["RAY_JOB_STOP_WAIT_TIME_S"]) > 3


def test_slurm_asks_for_a_signal_in_time_and_waits_by_asking() -> None:
    text = (templates.DEPLOY / "slurm" / "tsdf-ray.sbatch").read_text()
    assert "#SBATCH --signal=B:TERM@120" in text
    assert "#SBATCH --requeue" in text
    # A pause between two questions, never a guess of how long something takes.
    assert set(re.findall(r"\bsleep ([^\s;]+)", text)) == {"1"}
    waits = [words for words in templates.commands(templates.DEPLOY / "slurm" / "tsdf-ray.sbatch") if "nodes" in words]
    assert [words[words.index("--wait") + 1] for words in waits] == ["1", "${#hosts[@]}"]


def test_the_image() -> None:
    lines = (templates.DEPLOY / "Dockerfile").read_text().splitlines()
    text = "\n".join(lines)
    assert f"torch=={pinned('torch')}" in text
    assert text.index("USER 1000") > text.index("pip install --no-cache-dir -c constraints.txt .")
    assert "RAY_AUTH_MODE=token" in text
    copied = {word for line in lines if line.startswith("COPY") for word in line.split()[1:-1]}
    for name in copied:
        assert (templates.ROOT / name).exists(), name
    kept = {line[1:] for line in (templates.DEPLOY / "Dockerfile.dockerignore").read_text().split() if line[0] == "!"}
    assert kept == copied
    found = (templates.ROOT / "pyproject.toml").read_text()
    packages = re.search(r"include = \[(.*?)\]", found)
    assert packages is not None
    assert {name.strip(' "*') for name in packages.group(1).split(",")} <= copied


@pytest.mark.parametrize("path", [*templates.TEMPLATES, *PAGES], ids=names([*templates.TEMPLATES, *PAGES]))
def test_every_command_shown_can_be_parsed(path: Path) -> None:
    group = typer.main.get_command(app)
    shown = [words for words in templates.commands(path) if words[1] in group.commands]  # type: ignore[attr-defined]
    if path.name in {"rayjob.yaml", "raycluster.yaml", "tsdf-ray.sbatch", "start-head.sh", "cluster.md"}:
        assert shown
    for words in shown:
        plain = ["3" if word.startswith("$") and "host" in word else word for word in words if word != "$@"]
        numbers = ["60" if word == "$WAIT_SECONDS" else word for word in plain]
        command = group.commands[words[1]]  # type: ignore[attr-defined]
        command.make_context(words[1], numbers[2:])
