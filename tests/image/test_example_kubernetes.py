"""examples/kubernetes/sidecar: its pod as containers, since no kubelet can be had here.

What kubelet does is done by Docker: a container that does nothing owns the network, ss-warp has exactly the
rights, variables and mounts of the manifest, the app starts once ss-warp's probe says so.
"""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.image.compose import composed
from tests.image.example import Example
from tests.image.internet import STANDIN, Internet
from tests.image.manifests import built, container, pod
from tests.image.sidecar import by_warp, probed, probes, supervisor
from tests.lab.product import eventually

NUMBER = 11
HEALTHZ = "import sys, urllib.request as r; print(r.urlopen(sys.argv[1], timeout=3).status)"


def as_compose() -> dict[str, Any]:
    """Return the pod as a compose file."""
    spec, sidecar = pod(built("sidecar"), "Deployment"), container("sidecar")
    allowed = sidecar["securityContext"]
    [app] = spec["containers"]
    paths = {each["name"]: each.get("hostPath", {}).get("path") for each in spec["volumes"]}
    mounts = {each["name"]: each["mountPath"] for each in sidecar["volumeMounts"]}
    product = {
        "image": sidecar["image"],
        "network_mode": "service:network",
        "restart": "always",
        "cap_drop": allowed["capabilities"]["drop"],
        "cap_add": allowed["capabilities"]["add"],
        "security_opt": [f"no-new-privileges:{str(not allowed['allowPrivilegeEscalation']).lower()}"],
        "read_only": allowed["readOnlyRootFilesystem"],
        "tmpfs": [mounts["run"]],
        "volumes": [f"state:{mounts['state']}", f"{paths['tun']}:{mounts['tun']}"],
        "environment": {each["name"]: each.get("value", "pod-0") for each in sidecar["env"]},
        "healthcheck": composed()["healthcheck"],
    }
    beside = {
        "image": app["image"],
        "network_mode": "service:network",
        "cap_drop": app["securityContext"]["capabilities"]["drop"],
        "depends_on": {"ss-warp": {"condition": "service_healthy"}},
    }
    network = {
        "image": "pause",
        "cap_drop": ["ALL"],
        "dns": spec["dnsConfig"]["nameservers"],
        # Nobody but Docker turns IPv6 off in a new network.
        "sysctls": {"net.ipv6.conf.all.disable_ipv6": "0"},
    }
    return {"services": {"network": network, "ss-warp": product, "app": beside}, "volumes": {"state": {}}}


@pytest.fixture
def running(internet: Internet, tmp_path: Path) -> Iterator[Example]:
    internet.heard()
    file = tmp_path / "compose.json"
    file.write_text(json.dumps(as_compose()))
    stand_in = {"network": ["sleep", "infinity"], "app": [*STANDIN, "probe", "8081"]}
    with Example(internet, "kubernetes", stand_in, files=[str(file)], number=NUMBER) as made:
        yield made


def test_the_app_leaves_by_warp_the_probe_answers_and_a_kill_leaks_nothing(running: Example) -> None:
    internet, app, owner = running.internet, running.container("app"), running.container("ss-warp")
    assert by_warp(running.asked(app))
    with ExitStack() as stack:
        ask = ["python", "-c", HEALTHZ, f"http://{running.uplink}:9999/healthz"]
        kubelet = internet.run(stack, command=ask, **internet.placed(200))
        kubelet.wait(timeout=20)
        assert kubelet.logs().strip() == b"200", kubelet.logs().decode()
    started = owner.attrs["State"]["StartedAt"]
    owner.exec_run(["sh", "-c", f"kill -9 {supervisor(owner)}"])

    def restarted() -> bool:
        owner.reload()
        return bool(owner.attrs["State"]["StartedAt"] != started and owner.status == "running")

    eventually(restarted, "ss-warp runs again", 20)
    probed(app, 50)
    eventually(lambda: by_warp(running.asked(app)), "the app is back", 20)
    assert probes(app)["answers"] > 0
    assert internet.heard().leaks == {}
