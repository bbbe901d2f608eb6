"""Filters on the way that know WireGuard by what it looks like: blocked as it is, connected in disguise.

C ──▶ H (ss-warp) ──▶ F (drops handshakes that come first on a flow, or whatever has reserved bytes)
"""

import time
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest

from tests.cloudflare.config import EDGE_PORTS
from tests.cloudflare.seen import DeviceSeen
from tests.conftest import Record
from tests.lab.product import Product, eventually
from tests.lab.scene import EDGE, TRACE4, TRACE6, Scene, client_of, watched
from tests.lab.topology import Lab
from tests.lab.wire import Allowed, Packet, called

pytestmark = pytest.mark.lab

BOXES = ("first", "stamped")
PLAIN = {"WARP_JUNK": "off", "WARP_RESERVED": "on"}
"""What leaves no way through either."""
SHOWN = {"first": ("193,29,1", "4,40,70"), "stamped": (None, None)}
"""Reserved bytes and junk with which there is one."""


def is_junk(packet: Packet) -> bool:
    """Tell the datagrams of WARP_JUNK=4,40,70 to the edge."""
    to_edge = any(packet.destination in one for one in EDGE) and packet.destination_port in EDGE_PORTS
    return packet.kind == "udp" and packet.from_host and to_edge and 40 <= len(packet.payload) <= 4 * 70


JUNK = Allowed("junk", is_junk)
OUTSIDE = called("what an outage asks outside", [TRACE4, TRACE6], 443)


@pytest.fixture(scope="module")
def state(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A volume with an account."""
    state = tmp_path_factory.mktemp("disguise") / "state"
    with Product(lab, state) as product:
        product.serving()
    return state


@pytest.fixture(params=BOXES)
def box(lab: Lab, state: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    (state / "endpoints.json").unlink(missing_ok=True)
    lab.cloudflare.edge.restart()
    lab.cloudflare.edge.middlebox(**{request.param: True})
    yield request.param
    lab.cloudflare.edge.heal()


def shown(product: Product) -> tuple[str | None, str | None]:
    status = product.status()
    return status["reserved"], status["junk"]


def two_ports(device: DeviceSeen) -> dict[str, str]:
    address = ip_address(device.endpoint4)
    return {"WARP_ENDPOINTS": f"{address}:2408,{address}:500"}


def test_as_it_is_nothing_passes_and_in_disguise_it_does(
    lab: Lab, state: Path, tmp_path: Path, box: str, record: Record
) -> None:
    (before,) = lab.cloudflare.edge.devices()
    places = two_ports(before)
    with watched(lab, OUTSIDE), Product(lab, state, environment={**places, **PLAIN}) as product:
        eventually(lambda: (product.status().get("healing") or {}).get("tried", 0) > 3, "repairs", 40)
        (after,) = lab.cloudflare.edge.devices()
        assert after.handshake == before.handshake
        lab.cloudflare.edge.heal()
        product.serving(20)  # so it was the box
    lab.cloudflare.edge.restart()
    lab.cloudflare.edge.middlebox(**{box: True})
    with watched(lab, OUTSIDE, JUNK), Product(lab, state, environment=places) as product:
        product.serving(120)
        took = time.monotonic() - product.started_at
        said = [line for line in product.lines if "no port answers" in line]
        assert said
        assert "4,40,70" in said[0]
        eventually(lambda: shown(product) == SHOWN[box], "what was changed", 10)
        with client_of(lab, product, tmp_path) as client:
            assert Scene(lab, product, client).reaches(TRACE4)
    with watched(lab, JUNK), Product(lab, state, environment=places) as product:
        product.serving()
        again = time.monotonic() - product.started_at
        assert shown(product) == SHOWN[box], "what worked is kept"
        assert not [line for line in product.lines if "trying" in line]
    record(f"a filter of {box}", f"connected after {took:.0f} s, the next start after {again:.1f} s")
