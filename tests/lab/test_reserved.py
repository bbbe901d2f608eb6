"""WARP's reserved bytes on the wire: an edge that wants them gets them in every datagram.

C (sslocal) ──▶ H (ss-warp) ──▶ F (the edge counts, datagram by datagram, and drops what lacks the bytes)
"""

from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path

import pytest

from tests.cloudflare.config import bulk, bulk_sha256
from tests.cloudflare.seen import DeviceSeen
from tests.conftest import Record
from tests.lab.product import Product, eventually
from tests.lab.scene import TRACE4, client_of, watched
from tests.lab.topology import Lab
from tests.pace import fewer

pytestmark = [pytest.mark.lab, pytest.mark.vm]

HALF = max(10, fewer(50)) << 20
"""Bytes each way: 100 MB in all, in the emulated machine 20."""


@pytest.fixture(scope="module")
def state(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A volume with an account, whose edge wants the bytes from now on."""
    state = tmp_path_factory.mktemp("reserved") / "state"
    with Product(lab, state) as product:
        product.serving()
    return state


@pytest.fixture(autouse=True)
def demanding(lab: Lab, state: Path) -> Iterator[None]:
    lab.cloudflare.edge.demand()
    yield
    lab.cloudflare.edge.heal()


def device(lab: Lab) -> DeviceSeen:
    (one,) = lab.cloudflare.edge.devices()
    return one


@contextmanager
def started(lab: Lab, state: Path, **environ: str) -> Iterator[Product]:
    with watched(lab), Product(lab, state, environment=environ) as product:
        yield product


@pytest.mark.parametrize("endpoint", ["endpoint4", "endpoint6"])
def test_none_of_100_mb_goes_without_them(
    lab: Lab, state: Path, tmp_path: Path, endpoint: str, record: Record
) -> None:
    """E5: to an endpoint of either family."""
    address = ip_address(getattr(device(lab), endpoint))
    place = f"[{address}]:2408" if address.version == 6 else f"{address}:2408"
    before = device(lab)
    with started(lab, state, WARP_ENDPOINTS=place) as product:
        product.serving()
        assert product.status()["reserved"] == "193,29,1"
        assert product.status()["endpoint"] == place
        with client_of(lab, product, tmp_path) as client:
            assert client.download(TRACE4, HALF) == bulk_sha256(HALF)
            client.upload(TRACE4, bulk(HALF))
        implementation = product.status()["implementation"]
    after = device(lab)
    sent, bare = (
        after.with_reserved - before.with_reserved,
        after.without_reserved - before.without_reserved,
    )
    record(
        f"{implementation}, IPv{address.version} endpoint, {HALF >> 19} MB",
        f"{bare} of {sent} datagrams bare",
    )
    assert bare == 0
    assert sent > HALF / 1500


def test_off_there_is_no_connection_to_such_an_edge(lab: Lab, state: Path) -> None:
    """So the check above can fail; other edges answer zeros with zeros (E6)."""
    before = device(lab)
    with started(lab, state, WARP_RESERVED="off") as product:
        eventually(lambda: device(lab).without_reserved > before.without_reserved + 1, "tries", 20)
        assert product.status()["state"] != "connected"
        assert device(lab).with_reserved == before.with_reserved
        assert device(lab).handshake == before.handshake
        lab.cloudflare.edge.heal()
        product.serving(30)
        assert product.status()["reserved"] is None


def test_wrong_ones_do_not_connect_the_right_ones_by_hand_do(lab: Lab, state: Path) -> None:
    before = device(lab)
    with started(lab, state, WARP_RESERVED="193,29,77") as product:
        eventually(lambda: device(lab).without_reserved > before.without_reserved, "a try", 20)
        assert product.status()["state"] != "connected"
    with started(lab, state, WARP_RESERVED="193,29,1") as product:
        product.serving()
