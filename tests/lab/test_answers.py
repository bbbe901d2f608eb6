"""Whom the client asked, answers: seen on the client's own cable, for both addresses of the server."""

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import pytest

from tests.lab.product import Product
from tests.lab.scene import TRACE4, TRACE6, client_of
from tests.lab.topology import CLIENT, HOST, Lab
from tests.lab.wire import Wire

pytestmark = pytest.mark.lab

PORT = 8388


@pytest.fixture(scope="module", params=["full", "proxy"])
def product(
    request: pytest.FixtureRequest, lab: Lab, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Product]:
    state = tmp_path_factory.mktemp("answers") / "state"
    with Product(lab, state, environment={"ROUTE_MODE": str(request.param)}) as product:
        yield product.serving()


@pytest.mark.parametrize("server", HOST, ids=["v4", "v6"])
def test_answers_come_from_the_address_that_was_asked(
    lab: Lab, product: Product, server: IPv4Address | IPv6Address, tmp_path: Path
) -> None:
    mine = CLIENT[server.version == 6]
    with client_of(lab, product, tmp_path, server) as client, Wire(lab.name("R"), "to-c") as wire:
        association = client.udp()
        for target in (TRACE4, TRACE6):
            for number in range(20):
                association.send(b"ask %d " % number, target)
                host, _port, _payload = association.receive()
                assert host == str(target)
            assert client.trace(target).warp == "on"
        association.close()
    for kind in ("udp", "tcp"):
        frames = [one for one in wire.strangers() if one.kind == kind]
        answers = {(one.source, one.source_port, one.destination) for one in frames if not one.from_host}
        assert answers == {(server, PORT, mine)}
        assert {(one.destination, one.destination_port) for one in frames if one.from_host} == {
            (server, PORT)
        }
