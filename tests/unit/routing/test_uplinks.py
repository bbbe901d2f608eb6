"""Where a namespace meets the world."""

from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network

from entrypoint.linux.kernel_objects import AddressState, LinkState, Route, Snapshot
from entrypoint.routing.uplinks import Uplinks, find_uplinks

OURS = frozenset({"wg0", "ssw-null"})


def link(name: str, *, up: bool = True, kind: str = "veth") -> LinkState:
    return LinkState(1, name, kind, up, 1500)


def address(device: str, text: str, **more: bool) -> AddressState:
    return AddressState(device, ip_interface(text), **more)


def route(network: str, device: str, gateway: str | None = None, table: int = 254) -> Route:
    return Route(ip_network(network), table, device, gateway=ip_address(gateway) if gateway else None)


HOST = Snapshot(
    links=(link("lo"), link("eth0", kind=""), link("docker0", kind="bridge"), link("wg0", kind="tun")),
    addresses=(
        address("lo", "127.0.0.1/8"),
        address("lo", "::1/128"),
        address("eth0", "203.0.113.7/24"),
        address("eth0", "203.0.113.8/24"),
        address("eth0", "2001:db8:7::7/64"),
        address("eth0", "2001:db8:7::aaaa/64", permanent=False),
        address("eth0", "2001:db8:7::bbbb/64", usable=False),
        address("eth0", "fe80::7/64", link_scope=True),
        address("docker0", "172.17.0.1/16"),
        address("wg0", "172.16.0.2/32"),
    ),
    routes=(
        route("0.0.0.0/0", "eth0", "203.0.113.1"),
        route("203.0.113.0/24", "eth0"),
        route("::/0", "eth0", "fe80::1"),
        route("2001:db8:7::/64", "eth0"),
        route("fe80::/64", "eth0"),
        route("172.17.0.0/16", "docker0"),
        route("fe80::/64", "docker0"),
        route("ff00::/8", "docker0", table=255),
        route("0.0.0.0/0", "wg0", table=51820),
    ),
)

INTERNAL = Snapshot(
    links=(link("lo"), link("eth0"), link("eth1"), link("eth2", up=False), link("ssw-null", kind="tun")),
    addresses=(
        address("lo", "127.0.0.1/8"),
        address("eth0", "172.30.0.2/24"),
        address("eth1", "fd00:31::2/64"),
        address("eth1", "fe80::2/64", link_scope=True),
        address("eth2", "172.32.0.2/24"),
    ),
    routes=(route("172.30.0.0/24", "eth0"), route("fd00:31::/64", "eth1")),
)


def test_a_host_with_two_families_and_a_bridge() -> None:
    assert find_uplinks(HOST, OURS) == Uplinks(
        links=("eth0",),
        addresses=tuple(
            map(
                ip_address,
                ("203.0.113.7", "203.0.113.8", "2001:db8:7::7", "2001:db8:7::aaaa", "2001:db8:7::bbbb"),
            )
        ),
        listening=tuple(map(ip_address, ("203.0.113.7", "203.0.113.8", "2001:db8:7::7"))),
        gateways=(ip_address("203.0.113.1"),),
        private=(ip_network("172.17.0.0/16"),),
    )


def test_a_network_without_a_way_out_has_all_its_interfaces_as_uplinks() -> None:
    found = find_uplinks(INTERNAL, OURS)
    assert found.links == ("eth0", "eth1")
    assert set(map(str, found.listening)) == {"172.30.0.2", "fd00:31::2"}
    assert found.private == (ip_network("172.30.0.0/24"), ip_network("fd00:31::/64"))


def test_our_own_device_is_never_one_even_with_the_default() -> None:
    hijacked = replace(HOST, routes=(*HOST.routes, route("0.0.0.0/1", "wg0")))
    assert find_uplinks(hijacked, OURS) == find_uplinks(HOST, OURS)


def test_only_named_private_prefixes_are_neighbours() -> None:
    # TunnelVision: a DHCP server pushes routes more specific than the default.
    pushed = replace(
        HOST, routes=(*HOST.routes, route("8.0.0.0/7", "eth0"), route("10.0.0.0/8", "eth0", "203.0.113.66"))
    )
    assert find_uplinks(pushed, OURS).private == (ip_network("172.17.0.0/16"),)


def test_carrier_grade_nat_and_ula_count_as_private() -> None:
    both = replace(HOST, routes=(route("100.64.8.0/24", "eth0"), route("fd77::/64", "eth0")))
    assert find_uplinks(both, OURS).private == (ip_network("100.64.8.0/24"), ip_network("fd77::/64"))


def test_without_any_ipv6_address_the_kernel_has_none() -> None:
    old = replace(HOST, addresses=tuple(a for a in HOST.addresses if a.address.version == 4))
    assert find_uplinks(old, OURS).families == (4,)


def test_an_empty_namespace_has_no_uplink() -> None:
    assert find_uplinks(Snapshot(), OURS) == Uplinks(families=(4,))
