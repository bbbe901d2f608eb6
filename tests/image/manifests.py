"""The manifests of examples/kubernetes, built by kubectl."""

import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tests.image.compose import ROOT

FOLDER = ROOT / "examples" / "kubernetes"
KINDS = {
    "daemonset": "DaemonSet",
    "statefulset": "StatefulSet",
    "gateway": "Deployment",
    "sidecar": "Deployment",
}


def kustomize(folder: Path) -> list[dict[str, Any]]:
    done = subprocess.run(
        ["kubectl", "kustomize", "--load-restrictor", "LoadRestrictionsNone", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


@cache
def built(name: str) -> list[dict[str, Any]]:
    return kustomize(FOLDER / name)


def one(objects: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    [found] = [each for each in objects if each["kind"] == kind]
    return found


def pod(objects: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    spec: dict[str, Any] = one(objects, kind)["spec"]["template"]["spec"]
    return spec


def container(name: str) -> dict[str, Any]:
    """Return ss-warp's own."""
    spec = pod(built(name), KINDS[name])
    [found] = [
        each for each in spec.get("initContainers", []) + spec["containers"] if each["name"] == "ss-warp"
    ]
    return dict(found)
