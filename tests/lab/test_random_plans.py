"""Any plans, one after the other, carried out by the real kernel and by the fake: both print the same."""

import re
from collections.abc import Callable
from ipaddress import ip_address, ip_network

import anyio
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from entrypoint.linux.kernel_objects import Link
from entrypoint.linux.netlink import SystemNetlink
from entrypoint.linux.world import Netlink
from entrypoint.routing.plan import NetworkPlan, OurIds, RouteMode, network_plan
from entrypoint.routing.reconcile import converge, remove_all
from entrypoint.routing.uplinks import Uplinks
from tests.cloudflare.netns import Namespace
from tests.conftest import Record
from tests.fakes.netlink import FakeNetlink
from tests.fakes.views import ip_route, ip_rule
from tests.lab.alone import T4, T6, inside
from tests.pace import REPEAT
from tests.strategies import addresses, networks, ports

PLANS = 5 * REPEAT
SEED = 20260101

ordinary = addresses.filter(lambda one: not (one.is_multicast or one.is_unspecified or one.is_loopback))
marks = st.just(OurIds().mark)

# pyroute2 leaves out an address that is all zeros, and the kernel refuses `to 0.0.0.0/1` without it.
prefixes = networks(ordinary, 1, 1).filter(lambda one: int(one.network_address) > 0)


@st.composite
def plans(draw: st.DrawFn) -> list[NetworkPlan]:
    """Some plans with the same numbers, as one life of the product has them."""
    numbers = OurIds(draw(st.integers(3, 32700)), draw(st.integers(256, 1 << 31)), draw(marks), "wg0")
    modes: tuple[RouteMode, ...] = ("full", "proxy")
    mode = draw(st.sampled_from(modes))

    def plan() -> NetworkPlan:
        found = Uplinks(
            addresses=tuple(draw(st.lists(ordinary, max_size=4, unique=True))),
            direct=tuple(draw(st.lists(prefixes, max_size=3))),
            families=draw(st.sampled_from(((4, 6), (4,)))),
        )
        served, outside = draw(st.lists(ports, max_size=3)), draw(st.lists(prefixes, max_size=2))
        mtu = draw(st.integers(1280, 1500))
        return network_plan(mode, numbers, found, (T4, T6), mtu, input_ports=served, outbound_subnets=outside)

    return [plan() for _ in range(draw(st.integers(1, 3)))]


NOT_OURS = re.compile(r" (linkdown|pref medium|proto \w+|scope \w+|src [^ ]+)(?= |$)")


def printed(namespace: Namespace) -> list[str]:
    """Return what `ip rule` and `ip route show table all` say, without the kernel's own."""
    text = []
    for family in "-4", "-6":
        text += [line.rstrip() for line in namespace.output("ip", family, "rule")]
        routes = []
        for line in namespace.output("ip", family, "route", "show", "table", "all"):
            own = " table local " in line or line.startswith("fe80::/64 ")
            if not own and not (family == "-4" and ":" in line):
                while NOT_OURS.search(line):
                    line = NOT_OURS.sub("", line)
                routes.append(line.strip())
        text += sorted(routes)
    return text


async def life(netlink: Netlink, every: list[NetworkPlan], look: Callable[[], list[str]]) -> list[object]:
    """Carry them out one after the other, and take them back; return what could be seen."""
    await netlink.add(Link("wg0", "tun"))
    seen: list[object] = [look()]
    for plan in every:
        done = await converge(plan, netlink)
        seen += [done, look()]
    await remove_all(every[-1].ids, netlink)
    seen.append(look())
    assert seen[-1] == seen[0], "taken back it is as before"
    return seen


def test_the_fake_and_the_kernel_print_the_same(record: Record) -> None:
    tried = []

    @seed(SEED)
    @settings(max_examples=PLANS, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(plans())
    def same(every: list[NetworkPlan]) -> None:
        namespace = Namespace.new()
        try:
            real = inside(namespace, lambda: life(SystemNetlink(), every, lambda: printed(namespace)))
        finally:
            namespace.close()
        fake = FakeNetlink()

        def look() -> list[str]:
            state = fake._state()
            return [line for family in (4, 6) for line in (*ip_rule(state, family), *ip_route(state, family))]

        played = anyio.run(life, fake, every, look)
        assert played == real
        tried.append(len(every))

    same()
    assert sum(tried) >= PLANS
    record("random plans", f"{sum(tried)} in {len(tried)} lives: the kernel and the fake print the same")


def test_a_wrong_fake_is_noticed() -> None:
    """The comparison can fail: a rule more, in another order, or a route less is seen."""
    fake = FakeNetlink.container()
    state = fake._state()
    lines = ip_rule(state, 4) + ip_route(state, 4)
    assert lines[0] == "0:\tfrom all lookup local"
    assert "default via 172.18.0.1 dev eth0" in lines
    fake.routes.clear()
    assert ip_route(fake._state(), 4) == ["172.18.0.0/16 dev eth0"]
    assert ip_network("172.18.0.0/16").version == ip_address("172.18.0.1").version
