"""The device is deleted elsewhere, or two accounts meet on one machine.

H ── R ── F      topology.py; further hosts beside H (hosts.py)
"""

import json
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.conftest import Record
from tests.lab.hosts import more_hosts
from tests.lab.product import Product
from tests.lab.topology import Lab, Place

pytestmark = pytest.mark.lab
PACE = 5
A_YEAR_AGO = "2025-01-01T00:00:00+00:00"


def test_a_03_a_device_that_was_deleted_is_registered_again(tmp_path: Path, record: Record) -> None:
    """Asked after three rounds of repairs, the second time that the API says so, in the same process."""
    # The first device answers at every endpoint, the second at its own.
    environment = {"SHADOWSOCKS": "off", "WARP_ENDPOINTS": "162.159.192.2:2408"}
    with (
        Lab(tmp_path / "cloudflare") as lab,
        Product(lab, tmp_path / "state", environment=environment, pace=PACE) as one,
    ):
        cf = lab.cloudflare
        one.reached("connected")
        one.stop()
        kept = one.account()
        kept["account"]["created"] = A_YEAR_AGO  # at most one a day
        (one.state / "account.json").write_text(json.dumps(kept))
        cf.forget_calls()
        one.start().reached("connected")
        # Said once already, minutes ago: the second time counts.
        kept = one.account() | {"missing_since": time.time() - 600}
        (one.state / "account.json").write_text(json.dumps(kept))
        pid, gone = one.pid, time.monotonic()
        cf.change(kept["account"]["device"]["id"], active=False)
        # The first call of an outage comes after 90 to 150 of its seconds.
        assert "404" in one.said("the account no longer exists, registering a new one", 240 / PACE)
        one.reached("connected")
        took = time.monotonic() - gone
        assert one.pid == pid, "containers that share its network keep it"
        assert [call.method for call in cf.calls()] == ["GET", "POST"]
        assert one.account()["account"]["device"]["id"] == cf.edge.devices()[-1].id
    record(
        "A-03: device deleted",
        f"1 call to confirm, 1 registration, connected after {took * PACE:.0f} s, at {PACE} times the pace",
    )


def test_two_accounts_on_one_machine_share_172_16_0_2(lab: Lab, tmp_path: Path, record: Record) -> None:
    with more_hosts(lab, 1) as (other,), ExitStack() as stack:
        places: tuple[Place, ...] = ("H", other)
        two = [
            stack.enter_context(Product(lab, tmp_path / place, place, environment={"SHADOWSOCKS": "off"}))
            for place in places
        ]
        for one in two:
            assert one.reached("connected")["warp"] == "on"
        devices = {device.id: device for device in lab.cloudflare.edge.devices()}
        exits = set()
        for one, place in zip(two, places, strict=True):
            device = devices[one.account()["account"]["device"]["id"]]
            assert one.status()["exit"]["ipv4"] == device.exit4
            assert "inet 172.16.0.2/32" in lab.run(place, ["ip", "address", "show", "dev", "wg0"]).stdout
            exits.add(device.exit4)
        assert len(exits) == 2
    record("two containers, two accounts, both 172.16.0.2", f"both warp=on, by {' and '.join(sorted(exits))}")
