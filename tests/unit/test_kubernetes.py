"""examples/kubernetes: built by kubectl, valid for three versions, and as strict as compose.yaml."""

from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from entrypoint.settings import VARIABLES
from tests.image.compose import composed
from tests.image.manifests import FOLDER, KINDS, built, container, kustomize, one, pod

VERSIONS = ("1.29", "1.33", "1.37")
FOREIGN = {"ServiceMonitor"}
"""Kinds that no Kubernetes has by itself."""


@pytest.fixture
def with_components(tmp_path: Path) -> list[dict[str, Any]]:
    """The sidecar as a user's own overlay has it, with both components."""
    components = [
        str(Path("../" * len(tmp_path.parts[1:]), *FOLDER.parts[1:], name))
        for name in ("monitoring", "cluster-dns")
    ]
    sidecar = str(Path("../" * len(tmp_path.parts[1:]), *FOLDER.parts[1:], "sidecar"))
    mine = {
        "resources": [sidecar],
        "components": components,
        "images": [{"name": "ss-warp", "newName": "registry.example.net/ss-warp", "newTag": "0.1"}],
    }
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(mine))
    return kustomize(tmp_path)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", KINDS)
def test_it_is_valid(name: str, version: str) -> None:
    for each in built(name):
        kubernetes_validate.validate(each, version, strict=True)


def test_a_mistake_is_noticed() -> None:
    wrong = one(built("gateway"), "Deployment") | {"spec": {"replica": 1}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, VERSIONS[-1], strict=True)


def test_a_users_overlay_with_both_components(with_components: list[dict[str, Any]]) -> None:
    spec = pod(with_components, "Deployment")
    assert (spec["dnsPolicy"], "dnsConfig" in spec) == ("ClusterFirst", False)
    assert spec["initContainers"][0]["image"] == "registry.example.net/ss-warp:0.1"
    assert one(with_components, "ServiceMonitor")["spec"]["endpoints"][0]["port"] == "metrics"
    for each in with_components:
        if each["kind"] not in FOREIGN:
            kubernetes_validate.validate(each, VERSIONS[-1], strict=True)


@pytest.mark.parametrize("name", KINDS)
def test_it_may_do_what_the_compose_file_allows(name: str) -> None:
    allowed = container(name)["securityContext"]
    assert allowed["capabilities"] == {"drop": composed()["cap_drop"], "add": composed()["cap_add"]}
    assert allowed["readOnlyRootFilesystem"] == composed()["read_only"]
    assert not allowed["allowPrivilegeEscalation"]
    assert not {"privileged", "procMount"} & {*allowed}
    spec = pod(built(name), KINDS[name])
    assert not {"hostNetwork", "hostPID", "hostIPC"} & {*spec}
    assert not spec["automountServiceAccountToken"]
    mounts = {mount["mountPath"] for mount in container(name)["volumeMounts"]}
    assert mounts == {"/var/lib/ss-warp", "/run", "/dev/net/tun"}
    assert {mount["name"] for mount in container(name)["volumeMounts"]} == {
        one["name"] for one in spec["volumes"]
    } | ({"state"} if name == "statefulset" else set())


@pytest.mark.parametrize("name", KINDS)
def test_f26_services_set_no_variables_and_settings_exist(name: str) -> None:
    assert pod(built(name), KINDS[name])["enableServiceLinks"] is False
    assert {each["name"] for each in container(name)["env"]} <= {*VARIABLES}


@pytest.mark.parametrize("name", KINDS)
def test_probes_reach_healthz_and_none_restarts_it(name: str) -> None:
    made = container(name)
    assert "livenessProbe" not in made
    port = {each["name"]: each["containerPort"] for each in made["ports"]}["metrics"]
    env = {each["name"]: each.get("value") for each in made["env"]}
    assert env["HEALTH_SERVER_ADDRESS"] == f"0.0.0.0:{port}"
    assert env["FIREWALL_INPUT_PORTS"] == f"{port}/tcp"
    for probe in ("startupProbe", "readinessProbe"):
        assert made[probe]["httpGet"] == {"path": "/healthz", "port": "metrics"}


def test_the_two_forms_of_the_container_differ_in_what_they_must() -> None:
    alone, beside = container("gateway"), container("sidecar")
    assert beside.pop("restartPolicy") == "Always", "a native sidecar: the app waits for its startup probe"
    own = {"FIREWALL_OUTBOUND_SUBNETS", "SHADOWSOCKS", "SHADOWSOCKS_PASSWORD"}
    for each in (alone, beside):
        each["env"] = [env for env in each["env"] if env["name"] not in own]
        each["ports"] = [port for port in each["ports"] if not port["name"].startswith("shadowsocks")]
    assert alone == beside


def test_a_sidecars_app_can_not_go_around_the_firewall() -> None:
    for each in pod(built("sidecar"), "Deployment")["containers"]:
        assert each["securityContext"] == {
            "capabilities": {"drop": ["ALL"]},
            "allowPrivilegeEscalation": False,
        }


@pytest.mark.parametrize("name", KINDS)
def test_what_selects_pods_selects_these(name: str) -> None:
    labels = one(built(name), KINDS[name])["spec"]["template"]["metadata"]["labels"].items()
    for each in built(name):
        spec = each["spec"]
        selector = spec.get("podSelector") or spec.get("selector")
        if each["kind"] != "PersistentVolumeClaim":
            assert selector.get("matchLabels", selector).items() <= labels
