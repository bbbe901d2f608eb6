"""The emulator's own life: killed, started again, taken down.

H ── R ── F      the standard lab (topology.py), built for each test
"""

import os
import signal
import time
from pathlib import Path

import pytest

from tests.cloudflare.client import Cloudflare
from tests.lab.stock import client, echo, register
from tests.lab.topology import Lab

pytestmark = pytest.mark.lab
INSIDE = "1.1.1.1"


def test_a_killed_emulator_leaves_nothing_in_the_way_of_the_next(tmp_path: Path) -> None:
    with Lab(tmp_path) as lab:
        mine = register(lab, "H")
        os.kill(lab.cloudflare.pid, signal.SIGKILL)
        began = time.monotonic()
        with Cloudflare(lab.name("F"), uplink="uplink", state=tmp_path), client(lab, "H", mine) as again:
            assert time.monotonic() - began < 3
            again.route(INSIDE)
            assert echo(lab, "H", INSIDE, b"again", tries=10) == "104.28.0.1"


def test_devices_survive_a_restart_and_nothing_stays_behind(tmp_path: Path) -> None:
    with Lab(tmp_path) as first:
        mine = register(first, "H")
        names = [first.name(place) for place in ("C", "R", "H", "F")]
    with Lab(tmp_path) as second:
        assert [one.id for one in second.cloudflare.edge.devices()] == [mine.body["id"]]
        with client(second, "H", mine) as again:
            again.route(INSIDE)
            assert echo(second, "H", INSIDE, b"again", tries=10) == "104.28.0.1"
    assert not [name for name in names if Path("/run/netns", name).exists()]
