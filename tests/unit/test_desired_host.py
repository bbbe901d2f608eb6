"""What is wanted on a host: proxy unless told, late numbers, metadata, and others' numbers avoided."""

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from entrypoint.addresses import Mark, Ports
from entrypoint.desired import (
    DesiredState,
    choose_ids,
    closed_policy,
    on_host,
    policy_after_failure,
    require_understood,
    require_uplink,
    route_mode,
    what_stays_cut_off,
)
from entrypoint.errors import PlatformError
from entrypoint.firewall.policy import HostFull, ProxyTunnel
from entrypoint.linux.kernel_objects import Item, Link, Route, Rule, Snapshot
from entrypoint.routing.plan import OurIds
from entrypoint.routing.uplinks import Uplinks, find_uplinks
from entrypoint.settings import Settings
from entrypoint.settings import load as load_any
from tests.fakes.netlink import FakeNetlink
from tests.unit.surroundings import ACCOUNT, ENDPOINTS

pytestmark = pytest.mark.anyio
HOST = OurIds(priority=32759)
TAILSCALE = Mark(0x80000, 0xFF0000)


def load(**environ: str) -> Settings:
    return load_any({"NETWORK": "host", **environ})


@pytest.fixture
def host() -> FakeNetlink:
    made = FakeNetlink()
    made.plug("eth0", "203.0.113.7/24", "203.0.113.8/24", "2001:db8:7::7/64", kind="")
    made.plug("docker0", "172.17.0.1/16", kind="bridge")
    made.plug("lo2", "198.51.100.1/32", kind="dummy")
    made.meddle(
        Route(ip_network("0.0.0.0/0"), 254, "eth0", gateway=ip_address("203.0.113.1")),
        Rule(4, 5210, 254, mark=TAILSCALE, protocol=3),
    )
    return made


async def around(netlink: FakeNetlink) -> tuple[Snapshot, Uplinks]:
    snapshot = await netlink.snapshot()
    return snapshot, find_uplinks(snapshot, HOST.links, host=True)


@pytest.mark.parametrize(
    ("network", "host", "mode"), [("own", False, "full"), ("host", True, "proxy"), ("auto", True, "proxy")]
)
def test_in_doubt_it_is_the_host(network: str, host: bool, mode: str) -> None:
    settings = load(NETWORK=network)
    assert (on_host(settings), route_mode(settings)) == (host, mode)
    assert choose_ids(settings).priority == (32759 if host else 18)


async def test_the_uplinks_of_a_host(host: FakeNetlink) -> None:
    _, found = await around(host)
    assert found.links == ("eth0",)
    assert list(map(str, found.addresses)) == ["203.0.113.7", "203.0.113.8", "2001:db8:7::7", "198.51.100.1"]
    assert ip_address("198.51.100.1") not in found.listening
    assert found.foreign == (TAILSCALE,)


async def test_a_host_without_a_way_out_or_an_address_is_refused(host: FakeNetlink) -> None:
    snapshot, found = await around(host)
    require_uplink(snapshot, found)
    with pytest.raises(PlatformError, match="no address"):
        require_uplink(snapshot, replace(found, addresses=()))
    host.routes.clear()
    snapshot, found = await around(host)
    assert found.links == ()
    with pytest.raises(PlatformError, match="no default route"):
        require_uplink(snapshot, found)


async def test_bridges_are_no_uplinks_when_the_default_route_is_gone(host: FakeNetlink) -> None:
    host.routes.clear()
    host.addresses = [one for one in host.addresses if one.device == "docker0"]
    _, found = await around(host)
    assert found.links == ()


async def test_marks_of_everybody_and_our_own_are_not_foreign(host: FakeNetlink) -> None:
    host.meddle(
        Rule(4, 7, 254, mark=Mark(0, 0xFF)),
        Rule(4, 8, 254, mark=HOST.mark),
        Rule(4, 9, 254, mark=Mark(5, 5), more="tos 4"),
        Rule(4, 10, 77, mark=Mark(7, 7)),
        Rule(4, 11, 7120, mark=Mark(6, 6), more="not"),  # NetBird's
    )
    _, found = await around(host)
    assert found.foreign == (Mark(6, 6), TAILSCALE)


async def test_full_on_a_host(host: FakeNetlink) -> None:
    settings = load(ROUTE_MODE="full")
    snapshot, found = await around(host)
    wanted = DesiredState(
        settings, choose_ids(settings, (), snapshot), ACCOUNT, ENDPOINTS, frozenset({443, 22})
    )
    policy = wanted.policy(found)
    assert isinstance(policy, HostFull)
    assert (policy.uplinks, policy.listening, policy.foreign) == (("eth0",), (22, 443), (TAILSCALE,))
    assert ip_network("169.254.0.0/16") in policy.neighbours
    assert wanted.look(snapshot) == found
    rules = {item for item in wanted.plan(found).items if isinstance(item, Rule)}
    assert {rule.priority for rule in rules} == {32757, 32758, 32759, 32760, 32764}
    assert Rule(4, 32760, 254, destination=ip_network("169.254.0.0/16")) in rules
    assert Rule(4, 32759, 254, source=ip_network("203.0.113.8/32")) in rules


async def test_before_the_tunnel_only_ssserver_is_policed_but_after_a_failure_all(host: FakeNetlink) -> None:
    _, found = await around(host)
    ports = (Ports(8388, 8388, "tcp"), Ports(8388, 8388, "udp"))
    for mode in "full", "proxy":
        assert closed_policy(load(ROUTE_MODE=mode), HOST) == ProxyTunnel(device="wg0", shadowsocks=ports)
    assert policy_after_failure(load(), HOST, found, frozenset()) == ProxyTunnel(
        device="wg0", shadowsocks=ports
    )
    closed = policy_after_failure(load(ROUTE_MODE="full"), HOST, found, frozenset({22}))
    assert isinstance(closed, HostFull)
    assert (closed.addresses, closed.endpoints, closed.uplinks) == ((), frozenset(), ("eth0",))
    assert closed.listening == (22,), "sessions that conntrack met halfway always look outbound"


OTHERS: list[tuple[Item, OurIds]] = [
    (Rule(4, 32761, 100, source=ip_network("192.0.2.1/32"), protocol=3), replace(HOST, priority=32758)),
    (Rule(6, 32757, 100, protocol=3), replace(HOST, priority=32754)),
    (Route(ip_network("198.51.100.0/24"), 51820, "eth0"), replace(HOST, table=51821)),
    (Link("wg0", "tun"), replace(HOST, device="wg1")),
]


@pytest.mark.parametrize(("theirs", "ours"), OTHERS)
async def test_others_numbers_are_avoided(host: FakeNetlink, theirs: Item, ours: OurIds) -> None:
    host.meddle(theirs)
    snapshot, _ = await around(host)
    assert choose_ids(load(ROUTE_MODE="full"), (), snapshot) == ours
    assert choose_ids(load(ROUTE_MODE="full"), (HOST,), snapshot) == HOST, "what is on record is ours"
    named = load(ROUTE_RULE_PRIORITY="32759", ROUTE_TABLE="51820", WIREGUARD_INTERFACE="wg0")
    assert choose_ids(named, (), snapshot) == HOST, "what was set is refused, never replaced"


async def test_in_proxy_only_two_priorities_are_needed(host: FakeNetlink) -> None:
    host.meddle(
        Rule(4, 32764, 254, more="suppress_prefixlength 0", protocol=3), Rule(4, 32757, 7, protocol=3)
    )
    snapshot, _ = await around(host)
    assert choose_ids(load(), (), snapshot) == HOST


async def test_a_source_rule_of_the_hosts_keeps_its_table_wherever_it_stands(host: FakeNetlink) -> None:
    settings = load(ROUTE_MODE="full")
    for priority in 10001, 32764, 32765:
        theirs = Rule(4, priority, 101, source=ip_network("203.0.113.8/32"), protocol=3)
        host.meddle(theirs)
        snapshot, found = await around(host)
        ours = choose_ids(settings, (), snapshot)
        assert ours == HOST
        plan = DesiredState(settings, ours, ACCOUNT, ENDPOINTS).plan(found)
        rows = {
            one.source: one.table for one in plan.items if isinstance(one, Rule) and one.priority == 32759
        }
        assert rows[ip_network("203.0.113.8/32")] == 101
        assert rows[ip_network("203.0.113.7/32")] == 254
        host.meddle(theirs, removes=True)


async def test_a_rule_that_says_more_than_a_source_is_not_followed(host: FakeNetlink) -> None:
    network = ip_network("203.0.113.8/32")
    host.meddle(
        Rule(4, 9, 101, source=network, mark=Mark(4, 4), protocol=3),
        Rule(4, 9, 102, source=network, more="tos 16", protocol=3),
        Rule(4, 9, 103, source=network, destination=network, protocol=3),
    )
    _, found = await around(host)
    assert found.sources == ()


async def test_what_stays_cut_off_is_said_with_the_setting_that_mends_it(host: FakeNetlink) -> None:
    snapshot, _ = await around(host)
    assert list(what_stays_cut_off(load(ROUTE_MODE="full"), snapshot)) == []
    host.plug("vxlan0", "10.244.0.1/24", kind="vxlan")
    snapshot = replace((await around(host))[0], ipv6_by_default=False)
    ipv6, overlay = what_stays_cut_off(load(ROUTE_MODE="full"), snapshot)
    assert "disable_ipv6" in ipv6
    assert "vxlan0 (vxlan)" in overlay
    assert "FIREWALL_OUTBOUND_SUBNETS" in overlay
    assert len(list(what_stays_cut_off(load(ROUTE_MODE="proxy"), snapshot))) == 1


async def test_a_providers_resolver_is_named_and_the_worlds_are_not(host: FakeNetlink) -> None:
    snapshot, _ = await around(host)
    theirs = tuple(map(ip_address, ("185.12.64.1", "8.8.8.8", "10.0.0.2", "127.0.0.53", "168.63.129.16")))

    def said(**environ: str) -> list[str]:
        return list(what_stays_cut_off(load(**environ), snapshot, theirs))

    (line,) = said(ROUTE_MODE="full")
    assert line.startswith("this host's resolvers 185.12.64.1 will be asked through the tunnel")
    assert said(ROUTE_MODE="full", FIREWALL_OUTBOUND_SUBNETS="185.12.64.1/32") == []
    assert said(ROUTE_MODE="full", DNS_ADDRESSES="185.12.64.1") == []
    assert said(ROUTE_MODE="proxy") == []


async def test_a_vrf_is_refused_where_its_traffic_would_not_be_kept(host: FakeNetlink) -> None:
    require_understood(load(ROUTE_MODE="full"), (await around(host))[0])
    host.plug("blue", kind="vrf")
    snapshot, _ = await around(host)
    with pytest.raises(PlatformError, match=r"this host has a VRF \(blue\)"):
        require_understood(load(ROUTE_MODE="full"), snapshot)
    require_understood(load(ROUTE_MODE="proxy"), snapshot)
