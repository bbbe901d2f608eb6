"""From settings, account and uplinks to what is wanted: a table of values."""

from collections.abc import Mapping
from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from entrypoint.addresses import PRIVATE, Destination, Ports
from entrypoint.desired import (
    DesiredState,
    choose_ids,
    closed_policy,
    guises,
    implementation,
    neighbours,
    route_mode,
    shadowsocks_ports,
)
from entrypoint.errors import PlatformError
from entrypoint.firewall.policy import Closed, FullTunnel, ProxyTunnel
from entrypoint.linux.kernel_objects import Guise, LinkAddress, LinkUp, Rule
from entrypoint.routing.plan import OurIds
from entrypoint.routing.uplinks import Uplinks
from entrypoint.settings import Settings
from entrypoint.settings import load as load_any
from tests.unit.surroundings import ACCOUNT, ENDPOINTS, UPLINKS

WITH_ID = replace(ACCOUNT, client_id=b"\1\2\3")
ONLY_IPV4 = Uplinks(links=("eth0",), families=(4,))
TCP, UDP = Ports(8388, 8388, "tcp"), Ports(8388, 8388, "udp")


def load(environ: Mapping[str, str], network: str = "own") -> Settings:
    return load_any({"NETWORK": network, **environ})


def tunnelled(**environ: str) -> DesiredState:
    settings = load(environ)
    return DesiredState(settings, choose_ids(settings), WITH_ID, ENDPOINTS)


def test_numbers_are_the_designs_or_the_users() -> None:
    assert choose_ids(load({})) == OurIds(priority=18, table=51820, device="wg0")
    environ = {"ROUTE_RULE_PRIORITY": "118", "ROUTE_TABLE": "99", "WIREGUARD_INTERFACE": "warp"}
    assert choose_ids(load(environ)) == OurIds(priority=118, table=99, device="warp")


PLAIN, JUNK, ZEROS = Guise(b"\1\2\3"), Guise(b"\1\2\3", "4,40,70"), Guise()


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, (PLAIN, JUNK, ZEROS, Guise(bytes(3), "4,40,70"))),
        ({"WARP_JUNK": "off"}, (PLAIN, ZEROS)),
        ({"WARP_JUNK": "9,7,8", "WARP_RESERVED": "off"}, (Guise(bytes(3), "9,7,8"),)),
        ({"WARP_RESERVED": "on"}, (PLAIN, JUNK)),
        ({"WARP_RESERVED": "1,2,3", "WARP_JUNK": "off"}, (PLAIN,)),
        ({"WIREGUARD_IMPLEMENTATION": "kernel"}, (PLAIN,)),
    ],
)
def test_what_the_settings_leave_open_is_tried(environ: dict[str, str], expected: tuple[Guise, ...]) -> None:
    assert guises(load(environ), WITH_ID) == expected


def test_the_guise_that_worked_is_kept_while_the_settings_allow_it() -> None:
    assert replace(tunnelled(), remembered=JUNK).device().guise == JUNK
    assert replace(tunnelled(WARP_JUNK="off"), remembered=JUNK).device().guise == PLAIN
    assert tunnelled().device().guise == PLAIN


@pytest.mark.parametrize(
    ("environ", "remembered", "opened"),
    [
        ({}, None, "auto"),
        ({}, ZEROS, "auto"),
        ({}, JUNK, "userspace"),
        ({"WARP_JUNK": "off"}, JUNK, "auto"),
        ({"WARP_JUNK": "9,7,8"}, None, "userspace"),
        ({"WIREGUARD_IMPLEMENTATION": "kernel"}, JUNK, "kernel"),
    ],
)
def test_junk_needs_userspace(environ: dict[str, str], remembered: Guise | None, opened: str) -> None:
    assert implementation(load(environ), remembered) == opened


@pytest.mark.parametrize(("given", "mode"), [("", "full"), ("full", "full"), ("proxy", "proxy")])
def test_unset_the_mode_is_full(given: str, mode: str) -> None:
    assert route_mode(load({"ROUTE_MODE": given})) == mode


@pytest.mark.parametrize(
    ("environ", "ports"),
    [
        ({}, (TCP, UDP)),
        ({"SHADOWSOCKS_UDP": "off"}, (TCP,)),
        ({"SHADOWSOCKS": "off"}, ()),
        ({"SHADOWSOCKS_PORT": "443", "SHADOWSOCKS_UDP": "off"}, (Ports(443, 443, "tcp"),)),
    ],
)
def test_what_clients_may_reach(environ: dict[str, str], ports: tuple[Ports, ...]) -> None:
    assert shadowsocks_ports(load(environ)) == ports


def test_before_the_tunnel_nothing_leaves() -> None:
    ssh = Ports(22, 22, "tcp")
    assert closed_policy(load({"FIREWALL_INPUT_PORTS": "22/tcp"}), OurIds()) == Closed(input_ports=(ssh,))
    assert closed_policy(load({"ROUTE_MODE": "proxy"}), OurIds()) == ProxyTunnel(
        device="wg0", shadowsocks=(TCP, UDP)
    )


def test_the_device_begins_with_the_first_endpoint() -> None:
    config = tunnelled(WIREGUARD_PERSISTENT_KEEPALIVE_INTERVAL="10s", WIREGUARD_INTERFACE="warp").device()
    assert (config.name, config.keepalive, config.mark) == ("warp", 10, 0x1000)
    assert (config.private_key, config.peer_public_key) == ("private", "public")
    assert config.endpoint == ENDPOINTS[0]


def test_with_the_tunnel_all_endpoints_may_be_reached() -> None:
    edge = frozenset(Destination(one.address, one.port, "udp") for one in ENDPOINTS)
    assert tunnelled(FIREWALL_OUTBOUND_SUBNETS="203.0.113.0/24").policy(UPLINKS) == FullTunnel(
        device="wg0",
        addresses=(ip_address("172.16.0.2"), ip_address("2606:4700:110::2")),
        endpoints=edge,
        neighbours=(*PRIVATE, ip_network("198.51.101.0/24"), ip_network("203.0.113.0/24")),
        shadowsocks=(TCP, UDP),
    )
    assert tunnelled(ROUTE_MODE="proxy").policy(UPLINKS) == ProxyTunnel(
        device="wg0",
        addresses=(ip_address("172.16.0.2"), ip_address("2606:4700:110::2")),
        shadowsocks=(TCP, UDP),
        endpoints=edge,
    )


def test_neighbours_are_private_networks_those_next_to_us_and_what_the_user_names() -> None:
    assert neighbours(load({}), Uplinks()) == PRIVATE
    named = neighbours(load({"FIREWALL_OUTBOUND_SUBNETS": "203.0.113.0/24"}), UPLINKS)
    assert named == (*PRIVATE, ip_network("198.51.101.0/24"), ip_network("203.0.113.0/24"))


@pytest.mark.parametrize(
    ("given", "uplink", "mtu"),
    [
        ("", 9000, 1280),
        ("1420", 1400, 1420),
        ("auto", 1500, 1420),
        ("auto", 9000, 1420),
        ("auto", 1460, 1380),
        ("auto", 1360, 1280),
        ("auto", 1280, 1280),
    ],
)
def test_the_mtu_is_the_users_or_what_fits(given: str, uplink: int, mtu: int) -> None:
    found = replace(UPLINKS, mtu=uplink)
    assert LinkUp("wg0", mtu) in tunnelled(WIREGUARD_MTU=given).plan(found).items


@pytest.mark.parametrize(("carried", "versions"), [("dual", {4, 6}), ("4", {4}), ("6", {6})])
def test_the_tunnel_carries_the_families_that_are_set(carried: str, versions: set[int]) -> None:
    wanted = tunnelled(WARP_IP_VERSION=carried)
    assert {one.version for one in wanted.addresses(UPLINKS)} == versions
    assert wanted.probe(UPLINKS).families() == versions
    assert wanted.outbound_device == "wg0"
    wanted.require_family(UPLINKS)


@pytest.mark.parametrize(("mode", "policy"), [("full", FullTunnel), ("proxy", ProxyTunnel)])
def test_a_direct_family_is_in_plan_and_policy_and_ssserver_is_not_bound(mode: str, policy: type) -> None:
    wanted = tunnelled(WARP_IP_VERSION="4", DIRECT_IP_VERSION="6", ROUTE_MODE=mode)
    made = wanted.policy(UPLINKS)
    assert isinstance(made, policy)
    assert (made.direct, wanted.outbound_device) == (6, None)  # type: ignore[union-attr]
    assert "ip -6" not in str(wanted.plan(UPLINKS))


@pytest.mark.parametrize(
    ("environ", "uplinks", "words"),
    [
        ({"WARP_IP_VERSION": "6"}, ONLY_IPV4, "this kernel IPv4, WARP_IP_VERSION is 6"),
        ({"DNS_ADDRESSES": "2620:fe::fe"}, ONLY_IPV4, "the account has IPv4 and IPv6"),
        ({"WARP_IP_VERSION": "6", "HEALTH_TRACE_URLS": "https://1.1.1.1/"}, UPLINKS, "HEALTH_TRACE_URLS"),
    ],
)
def test_a_tunnel_that_nothing_could_be_asked_through_is_refused(
    environ: dict[str, str], uplinks: Uplinks, words: str
) -> None:
    with pytest.raises(PlatformError) as caught:
        tunnelled(**environ).require_family(uplinks)
    assert words in str(caught.value)


def test_the_plan_knows_the_users_ports_and_networks() -> None:
    plan = tunnelled(FIREWALL_INPUT_PORTS="53/udp", FIREWALL_OUTBOUND_SUBNETS="203.0.113.0/24").plan(UPLINKS)
    assert Rule(4, 20, 254, ip_protocol="udp", source_ports=(53, 53)) in plan.items
    assert Rule(4, 19, 254, destination=ip_network("203.0.113.0/24")) in plan.items


def test_without_ipv6_here_there_is_none_in_the_tunnel() -> None:
    wanted = tunnelled()
    assert [str(one) for one in wanted.addresses(ONLY_IPV4)] == ["172.16.0.2/32"]
    assert [one for one in wanted.plan(ONLY_IPV4).items if isinstance(one, LinkAddress)] == [
        LinkAddress("wg0", wanted.addresses(ONLY_IPV4)[0])
    ]
    assert wanted.probe(ONLY_IPV4).families() == {4}
    assert wanted.probe(UPLINKS).families() == {4, 6}


def test_health_is_asked_as_the_settings_say() -> None:
    probe = tunnelled(
        DNS_ADDRESSES="9.9.9.9", HEALTH_INTERVAL="20s", HEALTH_TRACE_URLS="https://trace.example/"
    ).probe(UPLINKS)
    assert probe.dns == (ip_address("9.9.9.9"),)
    assert (probe.interval, probe.trace_urls) == (20, ("https://trace.example",))
