"""The Netlink door on the real kernel, and the fake one held against it (tests/lab/alone.py)."""

import errno
import time
from collections.abc import Awaitable, Callable, Iterator
from ipaddress import ip_address, ip_interface, ip_network

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from entrypoint.addresses import Mark
from entrypoint.linux.kernel_objects import Item, Link, LinkAddress, LinkUp, Route, Rule, TunnelPeer
from entrypoint.linux.netlink import SystemNetlink
from entrypoint.linux.world import Netlink
from entrypoint.routing.plan import OurIds, ours_in
from entrypoint.routing.reconcile import remove_all
from tests.cloudflare.netns import Namespace, run
from tests.conftest import Record
from tests.fakes.netlink import FakeNetlink
from tests.fakes.views import show
from tests.lab.alone import ANY4, ANY6, ETH0, T4, T6, inside, ip, listed, plug

pytestmark = pytest.mark.lab

UNIVERSE: tuple[Item, ...] = (
    Link("wg0", "tun"),
    Link("ssw-null", "tun"),
    LinkUp("wg0", 1280),
    LinkUp("wg0"),
    LinkUp("ssw-null"),
    LinkAddress("wg0", T4),
    LinkAddress("wg0", ip_interface("10.9.0.1/24")),
    LinkAddress("wg0", T6),
    Route(ANY4, 51820, None, 4278198272),
    Route(ANY4, 51820, "ssw-null", 4278198272),
    Route(ANY4, 51820, "wg0"),
    Route(ANY4, 51820, "ssw-null"),
    Route(ANY6, 51820, "ssw-null", 4278198272),
    Route(ANY6, 51820, "wg0"),
    Route(ip_network("198.51.100.0/24"), 254, "wg0"),
    Rule(4, 16, 254, mark=Mark(0x1000, 0x1000)),
    Rule(6, 17, None, mark=Mark(0x1000, 0x1000)),
    Rule(4, 18, 254, source=ip_network("10.0.0.2/32")),
    Rule(4, 18, 254, source=ip_network("10.0.0.2/32"), protocol=4),
    Rule(6, 19, 254, destination=ip_network("fe80::/10")),
    Rule(4, 20, 254, ip_protocol="udp", source_ports=(53, 53)),
    Rule(6, 20, 254, ip_protocol="udp", source_ports=(546, 546), destination_ports=(547, 549)),
    Rule(4, 18, 51820, oif="wg0"),
    Rule(6, 20, 51820, uid=58388),
    Rule(6, 32764, 51820, iif="lo"),
)


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    made = Namespace.new()
    yield made
    made.close()


async def outcome(operation: Callable[[Item], Awaitable[None]], item: Item) -> int:
    try:
        await operation(item)
    except OSError as error:
        return error.errno or -1
    return 0


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.booleans(), st.sampled_from(UNIVERSE)), max_size=40))
def test_the_fake_answers_as_linux_does(steps: list[tuple[bool, Item]]) -> None:
    async def play(netlink: Netlink) -> tuple[list[tuple[str, int]], str]:
        said = []
        for adds, item in steps:
            operation = netlink.add if adds else netlink.remove
            text = item.command("add") if adds else item.command("del")
            said.append((text, await outcome(operation, item)))
        return said, show(await netlink.snapshot())

    namespace = Namespace.new()
    try:
        real = inside(namespace, lambda: play(SystemNetlink()))
    finally:
        namespace.close()
    fake = anyio.run(play, FakeNetlink())
    assert fake == real


def test_rules_that_say_more_than_ours_belong_to_others(namespace: Namespace) -> None:
    namespace.ip(
        "rule add priority 32764 iif lo uidrange 5-5 lookup 51820 protocol kernel",
        "rule add priority 32764 not iif lo lookup 51820 protocol kernel",
        "route add blackhole default table 51820 metric 9",
    )
    netlink = SystemNetlink()

    async def play() -> None:
        before = listed(namespace)
        assert not list(ours_in(await netlink.snapshot(), OurIds()))
        await remove_all(OurIds(), netlink)
        assert listed(namespace) == before

    inside(namespace, play)


def test_foreign_routes_are_read(namespace: Namespace) -> None:
    plug(namespace, *ETH0)
    ip(
        namespace,
        "route add 192.0.2.0/24 nexthop via 203.0.113.3 nexthop via 203.0.113.4",
        "route add 192.0.3.0/24 via inet6 fe80::1 dev eth0",
        "-6 route add 2001:db8:9::/48 nexthop via 2001:db8:7::3 nexthop via 2001:db8:7::4",
        "-6 route add blackhole 2001:db8:a::/48",
    )

    async def play() -> None:
        routes = set((await SystemNetlink().snapshot(whole=True)).routes)
        for network, gateway in (
            ("192.0.2.0/24", "203.0.113.3"),
            ("192.0.2.0/24", "203.0.113.4"),
            ("192.0.3.0/24", "fe80::1"),
            ("2001:db8:9::/48", "2001:db8:7::3"),
            ("2001:db8:9::/48", "2001:db8:7::4"),
        ):
            assert Route(ip_network(network), 254, "eth0", gateway=ip_address(gateway)) in routes
        assert Route(ip_network("2001:db8:a::/48"), 254, "lo", more="type blackhole") in routes

    inside(namespace, play)


def test_kinds_of_addresses_are_told_apart(namespace: Namespace) -> None:
    plug(namespace, *ETH0)
    namespace.ip(
        "address add 2001:db8:7::dead/64 dev eth0 preferred_lft 0",
        "address add 2001:db8:7::beef/64 dev eth0",  # under duplicate detection
        "address add 10.1.0.3/24 dev eth0",  # a secondary one
    )

    async def play() -> None:
        states = {str(one.address.ip): one for one in (await SystemNetlink().snapshot()).addresses}
        assert not states["2001:db8:7::dead"].usable
        assert not states["2001:db8:7::beef"].usable
        assert states["2001:db8:7::7"].usable
        assert states["10.1.0.3"].permanent
        assert states["10.1.0.3"].usable

    inside(namespace, play)


def test_a_kernel_without_wireguard_says_so(namespace: Namespace) -> None:
    async def play() -> int:
        code = await outcome(SystemNetlink().add, Link("wg0", "wireguard"))
        if code == 0:
            await SystemNetlink().remove(Link("wg0", "wireguard"))
        return code

    assert inside(namespace, play) in {0, errno.EOPNOTSUPP}


def test_every_change_is_told_and_a_burst_once(namespace: Namespace) -> None:
    netlink = SystemNetlink()
    damage = (
        "link add eth0 type veth peer far",
        "address add 10.0.0.1/24 dev eth0",
        "link set eth0 up",
        "address add 2001:db8::1/64 dev eth0",
        "route add default via 10.0.0.9",
        "-6 route add 2000::/3 dev eth0",
        "rule add priority 5 lookup 7",
        "-6 rule add priority 5 lookup 7",
    )

    async def play() -> None:
        for change in damage:
            async with netlink.changes() as changes:
                ip(namespace, change)
                with anyio.fail_after(2):
                    await anext(changes)
        async with netlink.changes() as changes:
            namespace.ip(*(f"rule add priority {number} lookup 7" for number in range(100, 200)))
            with anyio.fail_after(2):
                await anext(changes)
            with anyio.move_on_after(0.2):
                await anext(changes)
                pytest.fail("the burst was told twice")
        async with netlink.changes() as changes:
            ip(namespace, "route add 192.0.2.0/24 via 10.0.0.9", "-6 route add 2001:db8:1::/48 dev eth0")
            with anyio.move_on_after(0.2):
                await anext(changes)
                pytest.fail("a route that decides nothing was told")

    inside(namespace, play)


def test_far_ends_of_tunnels_are_read(namespace: Namespace) -> None:
    plug(namespace, *ETH0)
    lines = ("link add vx0 type vxlan id 1 dstport 8472 local 203.0.113.9 nolearning", "link set vx0 up")
    namespace.ip(*lines, "link add vx1 type vxlan id 2 dstport 4789 remote 2001:db8:7::5")
    with namespace.entered():
        run("bridge", "fdb", "append", "00:00:00:00:00:00", "dev", "vx0", "dst", "198.51.100.50")

    async def play() -> None:
        peers = {link.name: link.peers for link in (await SystemNetlink().snapshot()).links if link.peers}
        assert peers == {
            "vx0": (TunnelPeer(ip_address("198.51.100.50"), 17, 8472),),
            "vx1": (TunnelPeer(ip_address("2001:db8:7::5"), 17, 4789),),
        }

    inside(namespace, play)


MANY = 100_000


def test_a_hundred_thousand_routes_cost_next_to_nothing(namespace: Namespace, record: Record) -> None:
    """BGP's table beside us: what decides is listed, the rest is passed over."""
    plug(namespace, *ETH0)
    lines = (f"route add 20.{n >> 16}.{n >> 8 & 255}.{n & 255}/32 via 203.0.113.1" for n in range(MANY))
    namespace.ip(*lines)

    async def play() -> tuple[float, int]:
        await SystemNetlink().snapshot()
        begun = time.process_time()
        snapshot = await SystemNetlink().snapshot()
        return time.process_time() - begun, len(snapshot.routes)

    took, routes = inside(namespace, play)
    record(f"{MANY} routes", f"a snapshot takes {took * 1000:.0f} ms of CPU and holds {routes} routes")
    assert routes < 20
    assert took < 0.5
