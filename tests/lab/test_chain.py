"""The chain, end to end, in the lab of topology.py: real engines, real bytes, the wire watched.

C (sslocal) ──▶ R (observer) ──▶ H (ss-warp: ssserver → wg0) ──▶ F (edge → origin)
"""

import hashlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from ipaddress import IPv4Address, ip_address, ip_network
from pathlib import Path

import pytest

from tests.cloudflare.config import EDGE_PORTS, bulk, bulk_sha256
from tests.lab.client import Client, Target, shadowsocks_client
from tests.lab.product import Product
from tests.lab.topology import CLIENT, HOST, WIRE, Lab
from tests.lab.wire import Wire, called, looked_up, neighbours, served, wireguard
from tests.pace import fewer

pytestmark = [pytest.mark.lab, pytest.mark.vm]

MEGABYTES = fewer(50) << 20
DATAGRAMS = fewer(1000)
TRACE4, TRACE6 = ip_address("1.1.1.1"), ip_address("2606:4700:4700::1111")
EDGE = [ip_network("162.159.192.0/24"), ip_network("2606:4700:d0::/48")]
BY_FAMILY = pytest.mark.parametrize("target", [TRACE4, TRACE6], ids=["v4", "v6"])


@contextmanager
def watched(lab: Lab) -> Iterator[Wire]:
    """Watch the wire; leaving asserts that nothing left in clear."""
    config = lab.cloudflare.config
    allowed = [
        neighbours(),
        wireguard(EDGE, EDGE_PORTS),
        served("shadowsocks", 8388, ("tcp", "udp"), CLIENT),
        called("api", config.api_addresses, 443),
        looked_up(["api.cloudflareclient.com", "engage.cloudflareclient.com"], [TRACE4, TRACE6]),
    ]
    with Wire(lab.name("R"), WIRE, allowed) as wire:
        yield wire
        assert not wire.leaks(), [str(one) for one in wire.leaks()[:5]]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with Lab(tmp_path_factory.mktemp("cloudflare")) as lab:
        yield lab


@pytest.fixture(scope="module", params=["full", "proxy"])
def chain(
    request: pytest.FixtureRequest, lab: Lab, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Product, Client]]:
    """A running product and a client, once for each route mode."""
    directory = tmp_path_factory.mktemp(str(request.param))
    with ExitStack() as stack:
        product = stack.enter_context(
            Product(lab, directory / "state", environment={"ROUTE_MODE": str(request.param)})
        ).serving()
        client = stack.enter_context(client_of(lab, product, directory))
        yield product, client


@contextmanager
def client_of(lab: Lab, product: Product, directory: Path, server: Target = HOST[0]) -> Iterator[Client]:
    password = product.secrets()["password"]
    with shadowsocks_client(lab, directory, server, "2022-blake3-aes-128-gcm", password) as client:
        yield client


def exit_of(lab: Lab, target: Target) -> str:
    device = lab.cloudflare.edge.devices()[-1]
    return device.exit4 if isinstance(target, IPv4Address) else device.exit6


@BY_FAMILY
def test_the_origin_sees_the_edge(lab: Lab, chain: tuple[Product, Client], target: Target) -> None:
    _, client = chain
    seen = client.trace(target)
    assert seen.warp == "on"
    assert ip_address(seen.ip) == ip_address(exit_of(lab, target))


def test_names_are_resolved_by_the_tunnel(lab: Lab, chain: tuple[Product, Client]) -> None:
    _, client = chain
    lab.cloudflare.origin.forget()
    assert client.trace("origin.test").warp == "on"
    asked = [
        one for one in lab.cloudflare.origin.seen() if "origin.test" in one.detail and "dns" in one.protocol
    ]
    assert asked
    assert {one.warp for one in asked} == {"on"}


@BY_FAMILY
def test_fifty_megabytes_each_way(chain: tuple[Product, Client], target: Target) -> None:
    _, client = chain
    assert client.download(target, MEGABYTES) == bulk_sha256(MEGABYTES)
    data = bulk(MEGABYTES)
    assert client.upload(target, data) == hashlib.sha256(data).hexdigest()


@BY_FAMILY
def test_a_thousand_datagrams_come_back_from_where_they_went(
    lab: Lab, chain: tuple[Product, Client], target: Target
) -> None:
    """Answers reach C from the Shadowsocks address and port: sslocal's connected socket takes no other."""
    _, client = chain
    association = client.udp()
    missing = set(range(DATAGRAMS))
    for number in range(DATAGRAMS):
        association.send(f"echo {number:04} ".encode(), target)
        while missing and number - min(missing) >= 20:
            missing.discard(int(association.receive()[2].split()[1]))
    sources = set()
    while missing:
        host, _port, payload = association.receive()
        assert ip_address(host) == target
        _word, number_, source = payload.decode().split(maxsplit=2)
        missing.discard(int(number_))
        sources.add(source.split()[0].strip("[]").rsplit("]:", 1)[0])
    association.close()
    assert any(exit_of(lab, target) in source for source in sources), sources
