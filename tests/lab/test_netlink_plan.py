"""Plans on the real kernel: applied, damaged, restored, taken back; where packets go (tests/lab/alone.py)."""

import subprocess
from collections.abc import Iterator
from ipaddress import ip_address, ip_network

import anyio
import anyio.lowlevel
import pytest

from entrypoint.addresses import Ports
from entrypoint.linux.kernel_objects import SSSERVER_UID, Flow, Link, LinkAddress, LinkUp, Route
from entrypoint.linux.netlink import SystemNetlink
from entrypoint.routing.lookup import decide_route
from entrypoint.routing.ownership import claim
from entrypoint.routing.plan import OurIds, RouteMode, network_plan, ours_in
from entrypoint.routing.reconcile import apply, converge
from entrypoint.routing.uplinks import find_uplinks
from tests.cloudflare.netns import Namespace
from tests.lab.alone import ANY4, ETH0, T4, T6, inside, ip, listed, plug

pytestmark = pytest.mark.lab
WORLD4, WORLD6 = ip_address("8.8.8.8"), ip_address("2001:4860::8")


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    made = Namespace.new()
    yield made
    made.close()


@pytest.mark.parametrize("mode", ["full", "proxy"])
def test_a_plan_is_applied_found_complete_and_taken_back(namespace: Namespace, mode: RouteMode) -> None:
    plug(namespace, *ETH0)
    netlink = SystemNetlink()

    async def play() -> None:
        await netlink.add(Link("wg0", "tun"))
        before = listed(namespace)
        snapshot = await netlink.snapshot()
        found = find_uplinks(snapshot, OurIds().links)
        assert {str(one) for one in found.addresses} == {one.split("/")[0] for one in ETH0}
        plan = network_plan(
            mode,
            OurIds(),
            found,
            (T4, T6),
            1280,
            input_ports=(Ports(53, 60, "udp"), Ports(80, 80, "tcp")),
            outbound_subnets=(ip_network("192.168.0.0/16"),),
        )
        async with apply(plan, netlink) as done:
            assert set(done.added) == set(plan.items)
            assert not done.missing
            assert set(ours_in(await netlink.snapshot(), OurIds())) >= set(plan.items) - {LinkUp("ssw-null")}
            again = await converge(plan, netlink)
            assert not again.added
            assert not again.removed
        assert listed(namespace) == before

    inside(namespace, play)


def test_the_kernel_sends_packets_where_the_plan_says(namespace: Namespace) -> None:
    plug(namespace, *ETH0)
    netlink = SystemNetlink()

    def way(*words: str) -> str:
        with namespace.entered():
            done = subprocess.run(["ip", "route", "get", *words], capture_output=True, text=True, check=False)
        return done.stdout.split(" dev ")[-1].split()[0] if not done.returncode else "nowhere"

    async def play() -> None:
        await netlink.add(Link("wg0", "tun"))
        found = find_uplinks(await netlink.snapshot(), OurIds().links)
        plan = network_plan("full", OurIds(), found, (T4, T6), 1280, input_ports=(Ports(53, 53, "udp"),))
        async with apply(plan, netlink):
            assert way("8.8.8.8") == "wg0"
            assert way("2001:4860::8") == "wg0"
            assert way("8.8.8.8", "from", "203.0.113.9") == "eth0"
            assert way("2001:4860::8", "from", "2001:db8:7::7") == "eth0"
            assert way("8.8.8.8", "mark", "0x1000") == "eth0"
            assert way("10.1.0.77") == "eth0"
            assert way("10.2.0.77") == "wg0"
            assert way("8.8.8.8", "ipproto", "udp", "sport", "53") == "eth0"
            assert way("8.8.8.8", "ipproto", "tcp", "sport", "53") == "wg0"
            await netlink.remove(Link("wg0", "tun"))
            assert way("8.8.8.8") == "nowhere"
            assert way("2001:4860::8") == "ssw-null"
            gone = await converge(plan, netlink)
            assert {LinkAddress("wg0", T4), Route(ANY4, 51820, "wg0")} <= set(gone.missing)
            await netlink.add(Link("wg0", "tun"))
            assert not (await converge(plan, netlink)).missing
            assert way("8.8.8.8") == "wg0"

    inside(namespace, play)


def test_ssservers_user_is_led_into_the_tunnel_beside_a_direct_family(namespace: Namespace) -> None:
    plug(namespace, *ETH0)
    netlink = SystemNetlink()

    async def play() -> None:
        await netlink.add(Link("wg0", "tun"))
        found = find_uplinks(await netlink.snapshot(), OurIds().links)
        plan = network_plan("proxy", OurIds(), found, (T4,), 1280, direct=6)
        async with apply(plan, netlink):
            snapshot = await netlink.snapshot()
            for flow, device in (
                (Flow(WORLD4, uid=SSSERVER_UID), "wg0"),
                (Flow(WORLD4, ip_address("203.0.113.9"), uid=SSSERVER_UID), "eth0"),
                (Flow(WORLD4), "eth0"),
                (Flow(WORLD6, uid=SSSERVER_UID), "eth0"),
            ):
                walked = decide_route(snapshot, flow)
                assert (walked and walked.device) == device == await netlink.route_device(flow), flow

    inside(namespace, play)


def test_what_others_do_to_it_is_restored(namespace: Namespace) -> None:
    plug(namespace, *ETH0)
    netlink = SystemNetlink()

    async def play() -> None:
        await netlink.add(Link("wg0", "tun"))
        found = find_uplinks(await netlink.snapshot(), OurIds().links)
        plan = network_plan("full", OurIds(), found, (T4, T6), 1280)
        async with apply(plan, netlink):
            good = listed(namespace)
            for damage in (
                (
                    "rule flush",
                    "rule add priority 32766 lookup main protocol kernel",
                    "rule add priority 32767 lookup default protocol kernel",
                ),
                ("route flush table 51820",),
                ("-6 route flush table 51820",),
                ("link set wg0 down",),
                ("link set ssw-null down",),
                ("link del ssw-null",),
                ("address flush dev wg0",),
                ("rule add priority 18 from 203.0.113.9 lookup main",),
                ("rule add priority 18 from 198.51.100.1 lookup main protocol kernel",),
                (
                    "route add blackhole 198.51.100.0/24 table 51820",
                    "route del blackhole 198.51.100.0/24 table 51820",
                ),
                ("route add default dev eth0 table 51820 metric 7",),
                ("link set wg0 mtu 1400",),
            ):
                ip(namespace, *damage)
                done = await converge(plan, netlink)
                assert not done.missing, damage
                assert listed(namespace) == good, damage

    inside(namespace, play)


def test_cancelled_at_any_moment_nothing_is_left(namespace: Namespace) -> None:
    plug(namespace, *ETH0)
    netlink = SystemNetlink()
    records: list[bytes] = []

    async def turns(count: int, scope: anyio.CancelScope) -> None:
        for _ in range(count):
            await anyio.lowlevel.checkpoint()
        scope.cancel()

    async def play() -> None:
        await netlink.add(Link("wg0", "tun"))
        found = find_uplinks(await netlink.snapshot(), OurIds().links)
        plan = network_plan("full", OurIds(), found, (T4, T6), 1280)
        before = listed(namespace)
        for count in range(0, 160, 4):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(turns, count, tasks.cancel_scope)
                async with claim(OurIds(device="none0"), netlink, None, records.append), apply(plan, netlink):
                    await anyio.sleep_forever()
            assert listed(namespace) == before, count

    inside(namespace, play)
