"""`ss-warp doctor` on a host: what would break is named, and what runs is found well (K-07)."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Record
from tests.lab.host_topology import UDP, host_lab
from tests.lab.hosts import on_host
from tests.lab.topology import Lab

pytestmark = pytest.mark.lab

DOCTOR = (sys.executable, "-m", "entrypoint", "doctor")
EDGE = "162.159.192.1:2408"
REJECT = """
table ip blocked {
    chain forward {
        type filter hook forward priority 0;
        ip daddr 162.159.192.0/24 udp dport 2408 reject with icmp admin-prohibited
    }
}
"""


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    with host_lab(tmp_path / "cloudflare", containers=False) as lab:
        yield lab


def test_k07_doctor_names_the_server_that_would_break_and_whats_in_the_way(
    lab: Lab, tmp_path: Path, record: Record
) -> None:
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    environment = {
        "NETWORK": "host",
        "ROUTE_MODE": "full",
        "WARP_STATE_DIR": str(state),
        "WARP_ENDPOINTS": EDGE,
    }
    named = environment | {"FIREWALL_INPUT_PORTS": f"{UDP}/udp"}

    before = lab.run("H", DOCTOR, environment=environment, check=False)
    assert before.returncode == 78, before.stdout + before.stderr
    (wrong,) = [line for line in before.stdout.splitlines() if line.startswith("FAIL")]
    assert f"UDP port {UDP} replies through WARP" in wrong
    assert f"FIREWALL_INPUT_PORTS={UDP}/udp" in wrong
    assert lab.run("H", DOCTOR, environment=named).returncode == 0, "named, nothing is wrong"
    assert "resolver 1.1.1.1 answers outside the tunnel" in before.stdout
    assert f"UDP to {EDGE} is sent and not rejected" in before.stdout

    lab.run("R", ["nft", "-f", "-"], text=REJECT)
    blocked = lab.run("H", DOCTOR, environment=named, check=False)
    assert blocked.returncode == 69, blocked.stdout
    assert f"FAIL UDP to {EDGE} is rejected" in blocked.stdout
    lab.run("R", ["nft", "delete", "table", "ip", "blocked"])

    with on_host(lab, state, "full") as product:
        product.serving()
        inside = ("nsenter", "--mount", "--root", "--target", str(product.pid), *DOCTOR)
        running = lab.run("H", inside, environment=named)
        assert "ok   connected: warp=on from 104.28." in running.stdout
        assert "resolver 1.1.1.1 answers through the tunnel" in running.stdout
        assert "FAIL" not in running.stdout
    record("doctor", wrong)
