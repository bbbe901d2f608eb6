"""After the switch: would an answer still leave as before? And which ports listen."""

from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from entrypoint.addresses import Mark
from entrypoint.errors import PlatformError
from entrypoint.linux.kernel_objects import MAIN_TABLE, Route, Rule, Visit
from entrypoint.linux.proc import read_listening, read_users
from entrypoint.routing.lookup import MOST_VISITS, require_unchanged_replies, visits, watch_replies
from entrypoint.routing.uplinks import Uplinks
from tests.fakes.world import FakeWorld

pytestmark = pytest.mark.anyio
HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when\n"
NEAR, FAR, SECOND = map(ip_address, ("203.0.113.7", "203.0.113.8", "198.18.7.7"))
EVERYTHING = ip_network("0.0.0.0/0")
MARKED = Rule(4, 32765, 101, mark=Mark(0x65, 0xFFFFFFFF), protocol=3)


@pytest.fixture
def world(tmp_path: Path) -> FakeWorld:
    """A server with two interfaces, the second by the mark that its requests get."""
    made = FakeWorld(tmp_path)
    netlink = made.netlink
    netlink.links, netlink.routes = netlink.links[:1], []
    netlink.plug("eth0", "203.0.113.7/24", "203.0.113.8/24", kind="")
    netlink.plug("eth1", "198.18.7.7/24", kind="")
    netlink.meddle(Route(EVERYTHING, MAIN_TABLE, "eth0"), Route(EVERYTHING, 101, "eth1"), MARKED)
    netlink.listeners = frozenset({22})
    return made


async def test_k12_an_answer_that_would_leave_elsewhere_is_named(world: FakeWorld) -> None:
    doors, unused = world.doors, ip_address("9.9.9.9")
    before = await watch_replies(
        doors, await world.netlink.snapshot(), Uplinks(addresses=(NEAR, FAR, unused))
    )
    assert before.routes == {NEAR: "eth0", FAR: "eth0", unused: None}
    await require_unchanged_replies(doors, before)
    world.netlink.meddle(
        Rule(4, 9, 77, source=ip_network("203.0.113.8/32")), Route(ip_network("0.0.0.0/0"), 77, "eth1")
    )
    with pytest.raises(PlatformError, match=r"203\.0\.113\.8 by eth1 instead of eth0"):
        await require_unchanged_replies(doors, before)


async def test_an_answer_with_anothers_mark_is_followed_where_its_requests_come_in(world: FakeWorld) -> None:
    before = await watch_replies(world.doors, await world.netlink.snapshot(), Uplinks(addresses=(NEAR,)))
    # Requests to NEAR come in by eth0, so its answers never have the mark of eth1.
    assert {one: device for one, device in before.packets.items() if one.mark} == {
        Visit(SECOND, 1, 0x65): "eth1"
    }
    world.netlink.meddle(Rule(4, 32759, MAIN_TABLE, source=ip_network("198.18.7.7/32")))
    with pytest.raises(PlatformError, match=r"198\.18\.7\.7 port 1 with mark 0x65 by eth0 instead of eth1"):
        await require_unchanged_replies(world.doors, before)


async def test_an_answer_that_no_longer_leaves_is_named_and_one_that_never_did_is_not(
    world: FakeWorld,
) -> None:
    world.nft.leads = lambda one: "eth0" if one.address == NEAR else None
    before = await watch_replies(world.doors, await world.netlink.snapshot(), Uplinks(addresses=(NEAR, FAR)))
    assert {*before.packets} == {Visit(NEAR, 1), Visit(NEAR, 22), Visit(NEAR, 1, 0x65)}
    await require_unchanged_replies(world.doors, before)
    world.nft.leads = lambda one: "eth0" if one.port != 22 else None
    with pytest.raises(PlatformError, match=r"\(203\.0\.113\.7 port 22 no longer by eth0\)"):
        await require_unchanged_replies(world.doors, before)


async def test_without_packets_their_routes_are_compared(
    world: FakeWorld, caplog: pytest.LogCaptureFixture
) -> None:
    world.nft.denied = True
    before = await watch_replies(world.doors, await world.netlink.snapshot(), Uplinks(addresses=(NEAR,)))
    assert (before.routes, before.packets) == ({NEAR: "eth0"}, {})
    assert "cannot test replies with packets" in caplog.text
    await require_unchanged_replies(world.doors, before)


async def test_each_address_is_asked_whatever_listens(world: FakeWorld) -> None:
    addresses = tuple(ip_address(f"198.51.100.{number}") for number in range(100))
    snapshot = await world.netlink.snapshot()
    asked = visits(snapshot, addresses, frozenset(range(1, 500)))
    assert len(asked) == MOST_VISITS
    assert {Visit(one, 1) for one in addresses} <= {*asked}


def test_listening_ports_of_both_families(tmp_path: Path) -> None:
    (tmp_path / "tcp").write_text(HEAD + "   0: 00000000:0016 00000000:0000 0A 0\n")
    assert read_listening(tmp_path) == {22}
    rows = "   0: 00000000000000000000000000000000:1F90 0:0000 0A 0\n   1: 0:0050 0:C001 01 0\n"
    (tmp_path / "tcp6").write_text(HEAD + rows)
    assert read_listening(tmp_path) == {22, 8080}


def test_users_of_sockets_that_a_program_has(tmp_path: Path) -> None:
    row = "   0: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000 {} 0 {} 1\n"
    (tmp_path / "tcp").write_text(HEAD + row.format(0, 4711) + row.format(58388, 0))
    assert read_users(tmp_path) == {0}
    (tmp_path / "raw6").write_text(HEAD + row.format(58388, 4712))
    assert read_users(tmp_path) == {0, 58388}
