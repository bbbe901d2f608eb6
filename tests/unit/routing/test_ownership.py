"""Numbers: recorded before the first change, refused when they belong to others."""

import json
from ipaddress import ip_interface, ip_network

import anyio
import anyio.lowlevel
import pytest

from entrypoint.addresses import Mark
from entrypoint.errors import SettingsError, StateError
from entrypoint.linux.kernel_objects import SSSERVER_UID, Item, Link, LinkAddress, LinkUp, Route, Rule
from entrypoint.routing.ownership import claim
from entrypoint.routing.plan import OurIds, decode, encode, network_plan
from entrypoint.routing.reconcile import apply, converge
from entrypoint.routing.uplinks import find_uplinks
from tests.fakes.netlink import FakeNetlink
from tests.fakes.nft import FakeNft

pytestmark = pytest.mark.anyio
OLD = OurIds(priority=500, table=77, device="warp", null_device="nix")


class Record:
    """network.json."""

    def __init__(self) -> None:
        self.data: bytes | None = None
        self.versions: list[tuple[OurIds, ...]] = []

    def __call__(self, data: bytes) -> None:
        self.data = data
        self.versions.append(decode(data))


async def bring_up(netlink: FakeNetlink, numbers: OurIds) -> None:
    """What a predecessor did before it was killed."""
    netlink.meddle(Link(numbers.device, "tun"))
    found = find_uplinks(await netlink.snapshot(), numbers.links)
    await converge(network_plan("full", numbers, found, (ip_interface("172.16.0.2/32"),), 1280), netlink)


@pytest.mark.parametrize("taken", [(), (OurIds(),), (OurIds(), OLD)])
def test_what_is_written_can_be_read(taken: tuple[OurIds, ...]) -> None:
    assert decode(encode(taken)) == taken


def test_no_file_is_no_numbers() -> None:
    assert decode(None) == ()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[1]",
        "nonsense",
        '"text"',
        "[{}]",
        '[{"priority": 18}]',
        json.dumps([json.loads(encode([OurIds()]))[0] | {"table": "254"}]),
        json.dumps([json.loads(encode([OurIds()]))[0] | {"table": 254.5}]),
        json.dumps([json.loads(encode([OurIds()]))[0] | {"table": 1 << 40}]),
        json.dumps([json.loads(encode([OurIds()]))[0] | {"mark": 1}]),
        json.dumps([json.loads(encode([OurIds()]))[0] | {"device": ""}]),
    ],
)
def test_a_corrupt_file_is_an_error_with_a_hint(text: str) -> None:
    with pytest.raises(StateError) as caught:
        decode(text.encode() or b"\xff")
    assert caught.value.hint


async def test_recorded_before_the_first_change_and_forgotten_after_the_last() -> None:
    netlink, record = FakeNetlink.container(), Record()
    async with claim(OurIds(), netlink, None, record):
        assert record.versions[0] == (OurIds(),)
        assert netlink.log == []
        await bring_up(netlink, OurIds())
        netlink.meddle(Link("wg0", "tun"), removes=True)
        found = find_uplinks(await netlink.snapshot(), OurIds().links)
        async with apply(network_plan("full", OurIds(), found, (), 1280), netlink):
            assert decode(record.data) == (OurIds(),)
    assert decode(record.data) == ()


async def test_what_is_left_stays_recorded() -> None:
    netlink, record = FakeNetlink.container(), Record()
    async with claim(OurIds(), netlink, None, record):
        netlink.meddle(Rule(4, 18, 254, source=ip_network("10.0.0.1/32")))
    assert decode(record.data) == (OurIds(),)


async def test_leftovers_of_the_same_numbers_are_adopted() -> None:
    netlink, record = FakeNetlink.container(), Record()
    await bring_up(netlink, OurIds())
    before = str(netlink)
    async with claim(OurIds(), netlink, encode([OurIds()]), record):
        assert str(netlink) == before


async def test_leftovers_of_other_numbers_are_removed_with_their_device() -> None:
    netlink, record = FakeNetlink.container(), Record()
    before = str(netlink)
    await bring_up(netlink, OLD)
    async with claim(OurIds(), netlink, encode([OLD]), record):
        assert str(netlink) == before
        assert record.versions == [(OLD, OurIds()), (OurIds(),)]


@pytest.mark.parametrize(
    ("theirs", "sentence"),
    [
        (Rule(4, 18, 254, source=ip_network("192.0.2.1/32")), "ROUTE_RULE_PRIORITY=18: "),
        (Rule(6, 16, 100, mark=Mark(1, 1), protocol=4), "ROUTE_RULE_PRIORITY=18: "),
        (Rule(4, 32764, 7), "priority 32764: "),
        (Route(ip_network("198.51.100.0/24"), 51820, "eth0"), "ROUTE_TABLE=51820: "),
        (Link("wg0", "wireguard"), "WIREGUARD_INTERFACE: another program owns an interface wg0"),
        (Link("ssw-null", "tun"), "WIREGUARD_INTERFACE: another program owns an interface ssw-null"),
    ],
)
async def test_numbers_of_others_are_refused_and_nothing_is_touched(theirs: Item, sentence: str) -> None:
    netlink, record = FakeNetlink.container(has_wireguard=True), Record()
    netlink.meddle(theirs)
    before = str(netlink)
    with pytest.raises(SettingsError) as caught:
        async with claim(OurIds(), netlink, None, record):
            pytest.fail("entered")
    assert len(caught.value.problems) == 1
    assert caught.value.problems[0].startswith(sentence)
    assert (str(netlink), record.data) == (before, None)


async def test_a_mark_that_others_use_is_refused() -> None:
    for theirs in (Mark(0x1000, 0x1000), Mark(0x1200, 0xFFFF)):
        netlink = FakeNetlink.container()
        netlink.meddle(Rule(4, 7, 100, mark=theirs, protocol=3))
        with pytest.raises(SettingsError, match="mark 0x1000/0x10ff: another program"):
            async with claim(OurIds(), netlink, None, Record()):
                pytest.fail("entered")
    netlink.rules[-1] = Rule(4, 7, 254, mark=Mark(0x80000, 0xFF0000), protocol=3)
    async with claim(OurIds(), netlink, None, Record()):
        pass


async def test_a_firewall_table_is_ours_only_when_recorded_and_recorded_as_long_as_it_is_there() -> None:
    netlink, nft, record = FakeNetlink.container(), FakeNft(), Record()
    await nft.load("table inet ss_warp {\n\tchain theirs {\n\t}\n}\n")
    with pytest.raises(SettingsError, match="inet ss_warp exists and is not on record"):
        async with claim(OurIds(), netlink, None, record, nft=nft):
            pytest.fail("entered")
    async with claim(OurIds(), netlink, encode([OurIds()]), record, nft=nft):
        pass
    assert decode(record.data) == (OurIds(),)
    nft.tables.clear()
    async with claim(OurIds(), netlink, record.data, record, nft=nft):
        pass
    assert decode(record.data) == ()


async def test_ssservers_user_belongs_to_no_other_program(caplog: pytest.LogCaptureFixture) -> None:
    netlink, record = FakeNetlink.container(), Record()
    netlink.meddle(Rule(4, 7, 100, uid=SSSERVER_UID, protocol=3))
    netlink.users = frozenset({0, SSSERVER_UID})
    with pytest.raises(SettingsError) as caught:
        async with claim(OurIds(), netlink, None, record, nft=FakeNft()):
            pytest.fail("entered")
    rule, sockets = caught.value.problems
    assert rule.startswith("user 58388: another program added 'ip -4 rule add priority 7")
    assert sockets.startswith("user 58388: another program has sockets as this user")
    assert record.data is None
    netlink.rules.pop()
    async with claim(OurIds(), netlink, None, record):
        assert sockets in caplog.text, "in a namespace of our own it is said"


async def test_all_problems_are_listed() -> None:
    netlink, record = FakeNetlink.container(), Record()
    await bring_up(netlink, OurIds())
    with pytest.raises(SettingsError) as caught:
        async with claim(OurIds(), netlink, None, record):
            pytest.fail("entered")
    for word in ("ROUTE_RULE_PRIORITY", "ROUTE_TABLE", "wg0", "ssw-null"):
        assert any(word in problem for problem in caught.value.problems)


async def test_stopped_at_any_moment_the_record_tells_the_truth() -> None:
    for turns in range(120):
        netlink, record = FakeNetlink.container(), Record()
        before = str(netlink)
        await bring_up(netlink, OLD)

        async def stop(after: int, scope: anyio.CancelScope) -> None:
            for _ in range(after):
                await anyio.lowlevel.checkpoint()
            scope.cancel()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(stop, turns, tasks.cancel_scope)
            async with claim(OurIds(), netlink, encode([OLD]), record):
                await anyio.sleep_forever()
        recorded = decode(record.data) if record.data is not None else (OLD,)
        assert OLD in recorded or str(netlink) == before, turns


async def test_the_devices_mtu_and_addresses_are_ours_too() -> None:
    netlink = FakeNetlink.container()
    netlink.meddle(Link("wg0", "tun"), LinkUp("wg0", 1280), LinkAddress("wg0", ip_interface("10.9.9.9/24")))
    found = find_uplinks(await netlink.snapshot(), OurIds().links)
    assert found.links == ("eth0",)
    done = await converge(network_plan("full", OurIds(), found, (), 1280), netlink)
    assert done.removed == (LinkAddress("wg0", ip_interface("10.9.9.9/24")),)
