"""A path that carries less than usual between H and the edge.

H ── R ══ 1300 bytes ══ F      topology.py
"""

from pathlib import Path

import pytest

from tests.cloudflare.config import bulk_sha256
from tests.conftest import Record
from tests.lab.scene import TRACE4, serving
from tests.lab.topology import Lab

pytestmark = pytest.mark.lab
SIZE = 1 << 20


def test_a_path_for_1300_bytes_carries_a_download(tmp_path: Path, record: Record) -> None:
    """A full packet in the tunnel makes 1340 outside; whoever is in the way says so by ICMP."""
    with Lab(tmp_path / "cloudflare") as lab:
        for place, port in (("R", "to-f"), ("F", "uplink")):
            lab.run(place, ["ip", "link", "set", "dev", port, "mtu", "1300"])  # type: ignore[arg-type]
        with serving(lab, tmp_path) as scene:
            assert scene.client.download(TRACE4, SIZE) == bulk_sha256(SIZE)
            assert scene.client.upload(TRACE4, bytes(SIZE))
    record("path MTU 1300 with ICMP", f"{SIZE >> 20} MiB down, {SIZE >> 20} MiB up")
