"""`ss-warp doctor` in a network of its own: beside a running chain, and before the first start."""

import sys
from pathlib import Path

import pytest

from tests.conftest import Record
from tests.lab.product import Product
from tests.lab.topology import Lab

pytestmark = pytest.mark.lab

DOCTOR = (sys.executable, "-m", "entrypoint", "doctor")


def test_a_direct_packet_is_tried_and_rejected(lab: Lab, tmp_path: Path, record: Record) -> None:
    with Product(lab, tmp_path / "state") as product:
        product.serving()
        inside = ("nsenter", "--mount", "--root", "--target", str(product.pid), *DOCTOR)
        environment = {"NETWORK": "own", "WARP_STATE_DIR": str(product.state)}
        done = lab.run("H", inside, environment=environment, check=False)
        assert done.returncode == 0, done.stdout
        (direct,) = [line for line in done.stdout.splitlines() if "a direct packet" in line]
        assert direct.startswith("ok ")
        assert "was rejected" in direct
        assert "kill switch: loaded" in done.stdout
    record("doctor", direct)


def test_before_the_first_start(lab: Lab, tmp_path: Path, record: Record) -> None:
    lab.run("H", ["nft", "flush", "ruleset"])  # what an earlier container's namespace would have taken along
    environment = {"NETWORK": "own", "WARP_STATE_DIR": str(tmp_path / "none")}
    done = lab.run("H", (*DOCTOR, "--before"), environment=environment, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    for part in (
        "nftables has everything",
        "memory:",
        "api.cloudflareclient.com resolves",
        "UDP to 162.159.192.1",
    ):
        assert part in done.stdout
    record("doctor --before", f"{len(done.stdout.splitlines())} lines, exit 0")
