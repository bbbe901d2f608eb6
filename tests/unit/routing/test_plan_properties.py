"""Whatever the addresses, prefixes and ports: nothing public leaves but by the tunnel, and answers do."""

from collections.abc import Sequence
from ipaddress import IPv4Address, ip_address, ip_interface, ip_network
from typing import Any

import anyio
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from entrypoint.addresses import Address, Destination, Mark, Network, Ports, word_for
from entrypoint.firewall.policy import Closed, FullTunnel, HostFull, Policy, ProxyTunnel
from entrypoint.firewall.ruleset import ruleset
from entrypoint.linux.kernel_objects import MAIN_TABLE, SSSERVER_UID, Flow, Link, LinkAddress, Route, Snapshot
from entrypoint.routing.lookup import decide_route
from entrypoint.routing.plan import OurIds, RouteMode, network_plan
from entrypoint.routing.reconcile import converge
from entrypoint.routing.uplinks import find_uplinks
from tests.fakes.netlink import FakeNetlink
from tests.fakes.verdicts import Packet, passes
from tests.strategies import ports

T4, T6 = ip_interface("172.16.0.2/32"), ip_interface("2606:4700:110::2/128")
EDGE = Destination(ip_address("162.159.192.1"), 2408, "udp")
SHADOWSOCKS = (Ports(8388, 8388, "tcp"), Ports(8388, 8388, "udp"))

public4 = st.ip_addresses(v=4).filter(lambda one: word_for(one) is None)
public6 = st.ip_addresses(v=6).filter(lambda one: word_for(one) is None)
public: st.SearchStrategy[Address] = st.one_of(public4, public6)
private = st.sampled_from(
    tuple(map(ip_network, ("10.1.0.0/24", "172.17.0.0/16", "192.168.7.0/24", "fd00:17::/64")))
)


def on(address: Address, length: int) -> str:
    return f"{address}/{min(length, address.max_prefixlen)}"


@st.composite
def places(draw: st.DrawFn) -> FakeNetlink:
    """A machine with some uplink addresses, a bridge, and routes that a hostile DHCP server pushed."""
    netlink = FakeNetlink()
    own = [draw(public4), *draw(st.lists(public, max_size=4))]
    netlink.plug("eth0", *dict.fromkeys(on(one, draw(st.integers(8, 128))) for one in own))
    for number, network in enumerate(draw(st.lists(private, max_size=2, unique=True))):
        netlink.plug(f"br{number}", f"{network.network_address + 1}/{network.prefixlen}", kind="bridge")
    for destination in ("0.0.0.0/0", "::/0", "0.0.0.0/1", "128.0.0.0/1"):
        if destination == "0.0.0.0/0" or draw(st.booleans()):
            netlink.meddle(Route(ip_network(destination), MAIN_TABLE, "eth0"))
    return netlink


def planned(
    netlink: FakeNetlink, mode: RouteMode, numbers: OurIds, *, host: bool, served: Sequence[Ports]
) -> Snapshot:
    """Return what is there once the plan for this place is carried out."""

    async def play() -> Snapshot:
        await netlink.add(Link(numbers.device, "tun"))
        found = find_uplinks(await netlink.snapshot(), numbers.links, host=host)
        plan = network_plan(mode, numbers, found, (T4, T6), 1280, input_ports=served)
        for item in plan.items:
            if isinstance(item, Route) and item.destination.prefixlen == 0:
                assert item.table != MAIN_TABLE
                assert item.device in (None, *numbers.links), "a default that leads out"
        assert not (await converge(plan, netlink)).missing
        assert LinkAddress(numbers.device, T4) in plan.items
        return await netlink.snapshot()

    return anyio.run(play)


@pytest.mark.parametrize("host", [False, True])
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(places(), st.lists(ports, max_size=3), public, public, st.integers(1, 65535))
def test_in_full_what_starts_here_goes_into_the_tunnel_and_answers_do_not(
    host: bool, netlink: FakeNetlink, served: list[Ports], target: Address, far: Address, port: int
) -> None:
    numbers = OurIds(priority=32759) if host else OurIds()
    before = find_uplinks(netlink._state(), numbers.links, host=host)
    ways = {
        one: decide_route(netlink._state(), Flow(far, one))
        for one in before.addresses
        if one.version == far.version
    }
    assume(target not in before.addresses and not any(target in network for network in before.direct))
    snapshot = planned(netlink, "full", numbers, host=host, served=served)
    for transport in ("tcp", "udp"):
        way = decide_route(snapshot, Flow(target, transport=transport, source_port=port))
        assert way is not None, "the floor is under everything"
        listed = any(one.first <= port <= one.last for one in served if one.transport == "udp")
        if not (transport == "udp" and listed):
            assert way.device in (None, *numbers.links), f"{target} leaves by {way.rule.command('add')}"
    for address, way_before in ways.items():
        now = decide_route(snapshot, Flow(far, address, transport="tcp", source_port=22))
        assert now is not None
        if way_before:
            assert now.route == way_before.route, f"an answer from {address}"
        else:
            assert now.device in (None, *numbers.links), "what had no way gets none"


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(places(), public, public)
def test_in_proxy_nobody_notices(netlink: FakeNetlink, target: Address, far: Address) -> None:
    numbers = OurIds(priority=32759)
    flows = [
        Flow(target),
        *(Flow(far, one) for one in find_uplinks(netlink._state(), numbers.links).addresses),
    ]
    flows = [flow for flow in flows if flow.source is None or flow.source.version == far.version]
    before = [decide_route(netlink._state(), flow) for flow in flows]
    snapshot = planned(netlink, "proxy", numbers, host=True, served=())
    assert [decide_route(snapshot, flow) for flow in flows] == before
    for tunnel in (T4, T6):
        if tunnel.version == target.version:
            bound = decide_route(snapshot, Flow(target, tunnel.ip))
            assert bound is not None
            assert bound.device == "wg0"


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    """Any policy with a tunnel; neighbours are private, as planning makes them."""
    neighbours: tuple[Network, ...] = tuple(draw(st.lists(private, max_size=3)))
    listening = tuple(draw(st.lists(st.integers(1, 65535), max_size=3, unique=True)))
    endpoints = frozenset({EDGE})
    foreign = tuple(draw(st.lists(st.just(Mark(0x80000, 0xFF0000)), max_size=1)))
    common: dict[str, Any] = {"device": "wg0", "addresses": (T4.ip, T6.ip), "shadowsocks": SHADOWSOCKS}
    common_host: dict[str, Any] = {
        "null_device": "ssw-null",
        "uplinks": ("eth0", "eth1"),
        "listening": listening,
    }
    choices: tuple[Policy, ...] = (
        Closed(),
        FullTunnel(**common, endpoints=endpoints, neighbours=neighbours),
        HostFull(**common, **common_host, endpoints=endpoints, neighbours=neighbours, foreign=foreign),
        ProxyTunnel(**common),
    )
    return draw(st.sampled_from(choices))


def packet(
    oif: str, source: Address, target: Address, sport: int, dport: int, **more: object
) -> Packet | None:
    return (
        Packet(oif, source, target, sport=sport, dport=dport, **more)  # type: ignore[arg-type]
        if source.version == target.version
        else None
    )


@settings(max_examples=100, deadline=None)
@given(
    policies(),
    public,
    public,
    st.integers(1, 65535),
    st.integers(1, 65535),
    st.sampled_from(("tcp", "udp")),
    st.sampled_from(("eth0", "eth1")),
)
def test_no_ruleset_lets_out_what_starts_here_nor_stops_an_answer(
    policy: Policy, source: Address, target: Address, sport: int, dport: int, transport: str, oif: str
) -> None:
    table = ruleset(policy)
    asked = packet(oif, source, target, sport, dport, transport=transport)
    assume(asked is not None and target != EDGE.address)
    assert asked is not None
    if not isinstance(policy, ProxyTunnel):
        assert not passes(table, asked), "started here, by the uplink"
        mimic = packet(oif, source, target, 68, 67, transport="udp", uid=65534)
        assert mimic is not None
        assert not passes(table, mimic), "DHCP's ports are no pass"
    theirs = packet(oif, source, target, sport, dport, transport=transport, uid=SSSERVER_UID)
    assert theirs is not None
    assert not passes(table, theirs), "ssserver's, by the uplink"
    answer = packet(oif, source, target, 22, dport, transport="tcp", reply=True, syn=False)
    assert answer is not None
    assert passes(table, answer), "an answer of sshd"
    if isinstance(policy, HostFull):
        for port in policy.listening:
            older = packet(oif, source, target, port, dport, transport="tcp", syn=False)
            assert older is not None
            assert passes(table, older), "a session older than conntrack"
        assert "policy drop" not in table, "what comes in by the uplink is never judged"


def test_the_reader_knows_what_it_does_not_know() -> None:
    table = "\tchain output {\n\t\ttype filter hook output priority filter; policy accept;\n\t\t%s\n\t}\n"
    one = Packet("eth0", IPv4Address("203.0.113.7"), IPv4Address("9.9.9.9"))
    with pytest.raises(AssertionError, match="a word that is not known"):
        passes(table % "tcp option maxseg size 1 drop", one)
    assert not passes(table % "ip daddr { 9.9.9.0/24 } counter drop", one)
    assert passes(table % "ip6 daddr { ::/0 } drop", one)
    assert passes(table % 'oifname != { "eth0" } drop', one)
