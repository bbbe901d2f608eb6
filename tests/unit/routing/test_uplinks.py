"""Where a namespace meets the world."""

from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network

from entrypoint.linux.kernel_objects import AddressState, LinkState, Route, Rule, Snapshot
from entrypoint.routing.uplinks import Uplinks, find_uplinks

OURS = frozenset({"wg0", "ssw-null"})


def link(name: str, *, up: bool = True, kind: str = "veth") -> LinkState:
    return LinkState(1, name, kind, up, 1500)


def address(device: str, text: str, **more: bool) -> AddressState:
    return AddressState(device, ip_interface(text), **more)


def route(network: str, device: str, gateway: str | None = None, table: int = 254) -> Route:
    """Return a route; without a gateway it is one that the kernel made from an address."""
    via = ip_address(gateway) if gateway else None
    return Route(ip_network(network), table, device, gateway=via, connected=via is None)


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
    assert find_uplinks(HOST, OURS, host=True) == Uplinks(
        links=("eth0",),
        addresses=tuple(
            map(
                ip_address,
                ("203.0.113.7", "203.0.113.8", "2001:db8:7::7", "2001:db8:7::aaaa", "2001:db8:7::bbbb"),
            )
        ),
        listening=tuple(map(ip_address, ("203.0.113.7", "203.0.113.8", "2001:db8:7::7"))),
        defaults=(route("0.0.0.0/0", "eth0", "203.0.113.1"), route("::/0", "eth0", "fe80::1")),
    )


def test_a_network_without_a_way_out_has_all_its_interfaces_as_uplinks() -> None:
    found = find_uplinks(INTERNAL, OURS)
    assert found.links == ("eth0", "eth1")
    assert set(map(str, found.listening)) == {"172.30.0.2", "fd00:31::2"}


def test_our_own_device_is_never_one_even_with_the_default() -> None:
    hijacked = replace(HOST, routes=(*HOST.routes, route("0.0.0.0/1", "wg0")))
    assert find_uplinks(hijacked, OURS) == find_uplinks(HOST, OURS)


def test_a_gateway_is_nobody_special_and_a_pushed_route_makes_no_neighbour() -> None:
    """TunnelVision and LocalNet: who runs the LAN chooses routes, gateways and on-link prefixes."""
    more = (route("8.0.0.0/6", "eth0", "203.0.113.66"), route("203.0.113.200/32", "eth0", "8.8.8.8"))
    pushed = replace(HOST, routes=(*HOST.routes, *more, route("8.8.8.0/24", "eth0")))
    assert find_uplinks(pushed, OURS, host=True).direct == ()


def test_a_bridge_with_a_routed_public_prefix_is_a_neighbour_and_no_uplink() -> None:
    routed = replace(
        HOST,
        addresses=(*HOST.addresses, address("docker0", "198.51.101.1/24")),
        routes=(*HOST.routes, route("198.51.101.0/24", "docker0")),
    )
    found = find_uplinks(routed, OURS, host=True)
    assert found.links == ("eth0",)
    assert found.direct == (ip_network("198.51.101.0/24"),)
    assert ip_address("198.51.101.1") in found.addresses, "its published ports are answered from there"
    assert ip_address("198.51.101.1") not in found.listening


SECOND_NIC = replace(
    HOST,
    links=(*HOST.links, link("eth1", kind="")),
    addresses=(*HOST.addresses, address("eth1", "10.7.0.7/24")),
    routes=(*HOST.routes, route("10.7.0.0/24", "eth1"), route("0.0.0.0/0", "eth1", "10.7.0.1", table=101)),
)


def test_a_nic_whose_default_route_is_in_a_table_of_its_own_is_an_uplink() -> None:
    assert find_uplinks(SECOND_NIC, OURS, host=True).links == ("eth0",), "no rule leads to that table"
    chosen = replace(SECOND_NIC, rules=(Rule(4, 32765, 101, source=ip_network("10.7.0.7/32"), protocol=3),))
    found = find_uplinks(chosen, OURS, host=True)
    assert found.links == ("eth0", "eth1")
    assert ip_address("10.7.0.7") in found.addresses
    assert found.direct == (ip_network("10.0.0.0/8"),), "it is part of a private network without a route"


def test_both_halves_of_a_default_route_make_an_uplink() -> None:
    halves = replace(
        HOST,
        links=(*HOST.links, link("tun5", kind="tun")),
        routes=(*HOST.routes, route("0.0.0.0/1", "tun5"), route("128.0.0.0/1", "tun5")),
    )
    assert find_uplinks(halves, OURS).links == ("eth0", "tun5")


def test_azures_platform_address_counts_where_a_route_leads_to_it() -> None:
    azure = replace(HOST, routes=(*HOST.routes, route("168.63.129.16/32", "eth0", "203.0.113.1")))
    assert find_uplinks(azure, OURS, host=True).direct == (ip_network("168.63.129.16/32"),)
    assert find_uplinks(azure, OURS).direct == ()


def test_a_tunnel_address_is_taken_by_an_address_a_network_a_gateway_or_a_vpc() -> None:
    free, ours, bridged = map(ip_address, ("172.16.0.2", "203.0.113.7", "172.17.0.9"))
    gateway = ip_address("203.0.113.1")
    found = find_uplinks(HOST, OURS, host=True, tunnel=[free, ours, bridged, gateway])
    assert found.occupied == (ours, bridged, gateway)
    vpc = replace(HOST, addresses=(*HOST.addresses, address("eth0", "172.31.5.9/32")))
    assert find_uplinks(vpc, OURS, host=True, tunnel=[free]).occupied == (free,), "AWS's resolver may be that"


def test_shadowsocks_listens_on_a_second_network_of_our_own_namespace() -> None:
    two = replace(INTERNAL, routes=(*INTERNAL.routes, route("0.0.0.0/0", "eth0", "172.30.0.1")))
    found = find_uplinks(two, OURS)
    assert found.links == ("eth0",)
    assert set(map(str, found.listening)) == {"172.30.0.2", "fd00:31::2"}


def test_without_any_ipv6_address_the_kernel_has_none() -> None:
    old = replace(HOST, addresses=tuple(a for a in HOST.addresses if a.address.version == 4))
    assert find_uplinks(old, OURS).families == (4,)
    assert find_uplinks(replace(HOST, ipv6_by_default=False), OURS).families == (4,), "wg0 would have none"


def test_an_empty_namespace_has_no_uplink() -> None:
    assert find_uplinks(Snapshot(), OURS) == Uplinks(families=(4,))
