"""SHADOWSOCKS_ALLOWED_CIDRS behind Docker's proxy: the start warns of ranges that cannot work there."""

import logging
from ipaddress import ip_address, ip_network

import pytest

from entrypoint.linux.kernel_objects import Route
from entrypoint.routing.uplinks import Uplinks
from entrypoint.ssserver import doubts_about_clients
from tests.fakes.world import FakeWorld, in_memory

V4 = Uplinks(
    listening=(ip_address("172.18.0.2"),),
    defaults=(Route(ip_network("0.0.0.0/0"), 254, "eth0", gateway=ip_address("172.18.0.1")),),
)
BOTH = Uplinks(listening=(*V4.listening, ip_address("fd73::2")), defaults=V4.defaults)


@pytest.mark.parametrize(
    ("allowed", "uplinks", "named"),
    [
        ((), V4, []),
        (("203.0.113.0/24",), V4, []),
        (("203.0.113.0/24", "2001:db8::/32"), V4, ["2001:db8::/32"]),
        (("2001:db8::/32",), BOTH, []),
        (("172.16.0.0/12",), V4, ["172.16.0.0/12"]),
        (("2001:db8::/32", "172.18.0.1/32"), V4, ["2001:db8::/32", "172.18.0.1/32"]),
        (("0.0.0.0/0",), V4, []),
    ],
)
def test_a_range_that_cannot_do_what_it_seems_to_is_named(
    allowed: tuple[str, ...], uplinks: Uplinks, named: list[str]
) -> None:
    doubts = doubts_about_clients(tuple(map(ip_network, allowed)), uplinks)
    assert [doubt.partition(" ")[0] for doubt in doubts] == named


@pytest.mark.anyio
@pytest.mark.parametrize(("placement", "warned"), [("own", True), ("host", False)])
async def test_the_start_says_it_once(placement: str, warned: bool, caplog: pytest.LogCaptureFixture) -> None:
    with in_memory() as world:
        await served(world, NETWORK=placement, SHADOWSOCKS_ALLOWED_CIDRS="172.16.0.0/12")
    said = [one for one in caplog.records if "SHADOWSOCKS_ALLOWED_CIDRS" in one.getMessage()]
    assert [one.levelno for one in said] == [logging.WARNING] * warned


async def served(world: FakeWorld, **environ: str) -> None:
    async with world.serving(**environ):
        pass
