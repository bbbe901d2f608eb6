"""The network as it should be: which rules, in which order, and why not others."""

from ipaddress import ip_address, ip_interface, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from entrypoint.addresses import Ports
from entrypoint.linux.kernel_objects import Link, LinkUp, Route, Rule
from entrypoint.routing.plan import NetworkPlan, OurIds, RouteMode, add_order, network_plan
from entrypoint.routing.uplinks import Uplinks

T4, T6 = ip_interface("172.16.0.2/32"), ip_interface("2606:4700:110::2/128")
UPLINKS = Uplinks(
    links=("eth0",),
    addresses=tuple(map(ip_address, ("203.0.113.7", "203.0.113.8", "2001:db8:7::7"))),
    listening=(ip_address("203.0.113.7"),),
    direct=(ip_network("198.51.101.0/24"), ip_network("2001:db8:99::/64")),
)

FULL = """\
ip tuntap add dev ssw-null mode tun vnet_hdr
ip link set dev ssw-null up
ip -4 route add unreachable default table 51820 metric 4278198272
ip -6 route add default dev ssw-null table 51820 metric 4278198272
ip -4 rule add priority 16 from all fwmark 0x1000/0x10ff lookup main protocol kernel
ip -6 rule add priority 16 from all fwmark 0x1000/0x10ff lookup main protocol kernel
ip -4 rule add priority 17 from all fwmark 0x1000/0x10ff unreachable protocol kernel
ip -6 rule add priority 17 from all fwmark 0x1000/0x10ff unreachable protocol kernel
ip -4 rule add priority 18 from 203.0.113.7 lookup main protocol kernel
ip -4 rule add priority 18 from 203.0.113.8 lookup main protocol kernel
ip -6 rule add priority 18 from 2001:db8:7::7 lookup main protocol kernel
ip -4 rule add priority 19 from all to 10.0.0.0/8 lookup main suppress_prefixlength 0 protocol kernel
ip -4 rule add priority 19 from all to 172.16.0.0/12 lookup main suppress_prefixlength 0 protocol kernel
ip -4 rule add priority 19 from all to 192.168.0.0/16 lookup main suppress_prefixlength 0 protocol kernel
ip -4 rule add priority 19 from all to 100.64.0.0/10 lookup main suppress_prefixlength 0 protocol kernel
ip -4 rule add priority 19 from all to 198.51.101.0/24 lookup main protocol kernel
ip -4 rule add priority 19 from all to 192.168.7.0/24 lookup main protocol kernel
ip -6 rule add priority 19 from all to fc00::/7 lookup main suppress_prefixlength 0 protocol kernel
ip -6 rule add priority 19 from all to 2001:db8:99::/64 lookup main protocol kernel
ip -6 rule add priority 19 from all to fe80::/10 lookup main protocol kernel
ip -4 rule add priority 20 from all ipproto udp sport 53-60 lookup main protocol kernel
ip -6 rule add priority 20 from all ipproto udp sport 53-60 lookup main protocol kernel
ip link set dev wg0 mtu 1280 up
ip address add 172.16.0.2/32 dev wg0
ip address add 2606:4700:110::2/128 dev wg0 nodad
ip -4 route add default dev wg0 table 51820
ip -6 route add default dev wg0 table 51820
ip -4 rule add priority 32764 from all iif lo lookup 51820 protocol kernel
ip -6 rule add priority 32764 from all iif lo lookup 51820 protocol kernel"""

PROXY = """\
ip tuntap add dev ssw-null mode tun vnet_hdr
ip link set dev ssw-null up
ip -4 route add unreachable default table 51820 metric 4278198272
ip -6 route add default dev ssw-null table 51820 metric 4278198272
ip -4 rule add priority 18 from all oif wg0 lookup 51820 protocol kernel
ip -6 rule add priority 18 from all oif wg0 lookup 51820 protocol kernel
ip -4 rule add priority 19 from 172.16.0.2 lookup 51820 protocol kernel
ip -6 rule add priority 19 from 2606:4700:110::2 lookup 51820 protocol kernel
ip link set dev wg0 mtu 1280 up
ip address add 172.16.0.2/32 dev wg0
ip address add 2606:4700:110::2/128 dev wg0 nodad
ip -4 route add default dev wg0 table 51820
ip -6 route add default dev wg0 table 51820"""


def plan(mode: RouteMode = "full", uplinks: Uplinks = UPLINKS, **more: object) -> NetworkPlan:
    options = {"input_ports": (Ports(53, 60, "udp"), Ports(80, 80, "tcp"))} | more
    return network_plan(mode, OurIds(), uplinks, (T4, T6), 1280, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(("mode", "text"), [("full", FULL), ("proxy", PROXY)])
def test_both_route_modes_print_as_ip_commands(mode: RouteMode, text: str) -> None:
    assert str(plan(mode, outbound_subnets=(ip_network("192.168.7.0/24"),))) == text


def test_a_kernel_without_ipv6_gets_none() -> None:
    only = Uplinks(UPLINKS.links, UPLINKS.addresses[:2], families=(4,))
    assert "ip -6" not in str(plan(uplinks=only))
    assert str(T6) not in str(plan(uplinks=only))


def test_a_family_without_an_address_of_the_tunnel_ends_at_the_floor() -> None:
    text = str(network_plan("full", OurIds(), UPLINKS, (T4,), 1280))
    assert "ip -6 route add default dev ssw-null table 51820 metric 4278198272" in text
    assert "ip -6 rule add priority 32764 from all iif lo lookup 51820 protocol kernel" in text
    assert "ip -6 route add default dev wg0" not in text


def test_a_family_that_leaves_directly_stays_as_it_was() -> None:
    text = str(network_plan("full", OurIds(), UPLINKS, (T4,), 1280, direct=6))
    assert "ip -6" not in text
    assert "uidrange" not in text, "what starts here is led by `iif lo`, ssserver's too"
    assert text.count("ip -4") == str(plan(input_ports=())).count("ip -4")


def test_beside_a_direct_family_ssservers_user_is_led_but_its_answers_are_not() -> None:
    text = str(network_plan("proxy", OurIds(), UPLINKS, (T6,), 1280, direct=4)).splitlines()
    assert "ip -4" not in "".join(text)
    answer = text.index("ip -6 rule add priority 18 from 2001:db8:7::7 lookup main protocol kernel")
    led = text.index("ip -6 rule add priority 20 from all uidrange 58388-58388 lookup 51820 protocol kernel")
    assert answer < led
    assert "uidrange" not in str(network_plan("proxy", OurIds(), UPLINKS, (T6,), 1280))


def test_a_tunnel_without_ipv4_has_the_dummy_address() -> None:
    dummy = "ip address add 192.0.0.8/32 dev wg0"
    assert dummy in str(network_plan("full", OurIds(), UPLINKS, (T6,), 1280))
    assert dummy not in str(network_plan("full", OurIds(), UPLINKS, (T6,), 1280, direct=4))
    assert dummy not in str(plan())


def test_nothing_is_there_twice() -> None:
    twice = plan(outbound_subnets=UPLINKS.direct)
    assert len(set(twice.items)) == len(twice.items)


def test_other_numbers_are_used_everywhere() -> None:
    numbers = OurIds(priority=500, table=77, device="warp", null_device="nix")
    text = str(network_plan("full", numbers, UPLINKS, (T4, T6), 1400))
    for default in ("51820", "wg0", "ssw-null", "priority 18 "):
        assert default not in text
    assert "priority 498 " in text
    assert "dev warp mtu 1400" in text


@given(st.sampled_from(["full", "proxy"]), st.permutations((T4, T6)), st.booleans())
def test_the_order_keeps_answers_and_closes_behind(
    mode: RouteMode, addresses: list[object], both: bool
) -> None:
    uplinks = UPLINKS if both else Uplinks(("eth0",), UPLINKS.addresses[:1], families=(4,))
    items = network_plan(mode, OurIds(), uplinks, addresses, 1280).items  # type: ignore[arg-type]
    stages = [add_order(item, OurIds()) for item in items]
    assert stages == sorted(stages)
    assert isinstance(items[0], Link)
    floors = [n for n, item in enumerate(items) if isinstance(item, Route) and item.metric]
    into = [n for n, item in enumerate(items) if isinstance(item, Rule) and item.table == 51820]
    assert max(floors) < min(into)
    if mode == "full":
        answers = [n for n, item in enumerate(items) if isinstance(item, Rule) and item.table != 51820]
        assert max(answers) < min(into)
        assert into[-1] == len(items) - 1
    assert LinkUp("wg0", 1280) in items
