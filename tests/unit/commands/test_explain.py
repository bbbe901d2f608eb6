"""Which way a packet goes and why: the rules walked on a fake kernel that has the real plan."""

from ipaddress import ip_address, ip_interface, ip_network

import pytest

from entrypoint.addresses import Ports
from entrypoint.commands.explain import Firewall, explain, explain_live
from entrypoint.errors import UsageError
from entrypoint.linux.kernel_objects import MAIN_TABLE, Flow, Route, Rule
from entrypoint.routing.plan import OurIds, RouteMode, network_plan
from entrypoint.routing.reconcile import converge
from entrypoint.routing.uplinks import find_uplinks
from tests.fakes.netlink import FakeNetlink

pytestmark = pytest.mark.anyio

NUMBERS = OurIds()
TUNNEL = (ip_interface("172.16.0.2/32"), ip_interface("2606:4700:110:8abc::1/128"))
WORLD4, WORLD6 = ip_address("1.1.1.1"), ip_address("2606:4700:4700::1111")
CLIENT = ip_address("198.51.100.9")
ETH0 = ip_address("172.18.0.5")


async def planned(mode: RouteMode) -> FakeNetlink:
    netlink = FakeNetlink.container()
    netlink.plug("wg0", kind="tun")
    found = find_uplinks(await netlink.snapshot(), NUMBERS.links)
    plan = network_plan(mode, NUMBERS, found, TUNNEL, 1280, input_ports=[Ports(5353, 5353, "udp")])
    assert not (await converge(plan, netlink)).missing
    return netlink


@pytest.mark.parametrize(
    ("flow", "device", "what", "why"),
    [
        (Flow(WORLD4), "wg0", "started here, leaves through WARP by wg0", "rule 32764, table 51820"),
        (Flow(WORLD6), "wg0", "started here, leaves through WARP by wg0", "rule 32764, table 51820"),
        (Flow(CLIENT, ETH0), "eth0", "a reply from this server's own address", "SSH keeps working"),
        (Flow(ip_address("172.18.0.9")), "eth0", "a neighbour", "reached directly"),
        (Flow(WORLD4, mark=0x1000), "eth0", "outside the tunnel", "WireGuard's encrypted packets"),
        (Flow(WORLD4, transport="udp", source_port=5353), "eth0", "reply of a UDP server", "wildcard"),
        (Flow(WORLD4, device="wg0"), "wg0", "through WARP", "table 51820"),
    ],
)
async def test_full(flow: Flow, device: str, what: str, why: str) -> None:
    said = explain(await (await planned("full")).snapshot(), NUMBERS, flow)
    assert said.way is not None
    assert said.way.device == device
    assert what in said.what
    assert why in said.why


async def test_proxy_only_takes_what_is_bound_to_the_tunnel_or_has_its_address() -> None:
    snapshot = await (await planned("proxy")).snapshot()
    for flow in (Flow(WORLD4, device="wg0"), Flow(WORLD4, TUNNEL[0].ip)):
        assert "through WARP" in explain(snapshot, NUMBERS, flow).what
    untouched = explain(snapshot, NUMBERS, Flow(WORLD4))
    assert untouched.what == "leaves by eth0"
    assert untouched.why == "rule 32766: none of ss-warp's rules matches it"


async def test_a_dead_tunnel_refuses_instead_of_leaking() -> None:
    netlink = await planned("full")
    for version in (4, 6):
        default = ip_network("0.0.0.0/0" if version == 4 else "::/0")
        netlink.meddle(Route(default, NUMBERS.table, "wg0"), removes=True)
    for flow in (Flow(WORLD4), Flow(WORLD6)):
        said = explain(await netlink.snapshot(), NUMBERS, flow)
        assert said.what == "rejected: the tunnel has no route for it"


async def test_an_encrypted_packet_without_a_way_is_refused() -> None:
    netlink = await planned("full")
    netlink.meddle(
        Route(ip_network("0.0.0.0/0"), MAIN_TABLE, "eth0", gateway=ip_address("172.18.0.1")), removes=True
    )
    said = explain(await netlink.snapshot(), NUMBERS, Flow(WORLD4, mark=0x1000))
    assert said.what == "rejected"


async def test_a_rule_that_is_not_understood_is_named() -> None:
    netlink = await planned("full")
    netlink.meddle(Rule(4, 5, 100, more="uidrange 1000-1000"))
    said = explain(await netlink.snapshot(), NUMBERS, Flow(WORLD4))
    assert "ignored, not understood: ip -4 rule add priority 5" in said.as_text()


async def test_without_any_route_it_is_refused() -> None:
    said = explain(await FakeNetlink().snapshot(), NUMBERS, Flow(WORLD4))
    assert said.way is None
    assert said.as_text().startswith("to 1.1.1.1: rejected: no route to it.")


@pytest.mark.parametrize(
    ("firewall", "what", "why"),
    [
        (Firewall(closed=True), "rejected by the kill switch", "firewall is closed"),
        (Firewall(closed=True, direct=4), "leaves by eth0, outside the tunnel", "DIRECT_IP_VERSION=4"),
        (Firewall(closed=True, direct=6), "rejected by the kill switch", "firewall is closed"),
        (Firewall(), "leaves by eth0", "none of ss-warp's rules"),
    ],
)
async def test_the_firewall_has_a_word(firewall: Firewall, what: str, why: str) -> None:
    """While it registers there are no rules yet: it looked like a leak that is not there."""
    said = explain(await FakeNetlink.container().snapshot(), NUMBERS, Flow(WORLD4), firewall)
    assert said.what.startswith(what)
    assert why in said.why


async def test_a_source_that_is_not_ours_is_said() -> None:
    with pytest.raises(UsageError, match=r"10\.0\.0\.1 is not an address of this machine"):
        await explain_live(await planned("full"), NUMBERS, Flow(WORLD4, ip_address("10.0.0.1")))


async def test_the_same_as_an_object() -> None:
    said = explain(await (await planned("full")).snapshot(), NUMBERS, Flow(CLIENT, ETH0))
    assert said.as_json() == {
        "from": "172.18.0.5",
        "to": "198.51.100.9",
        "mark": 0,
        "what": "a reply from this server's own address, leaves by eth0",
        "why": "rule 18: replies leave the way the request came, by eth0: SSH keeps working",
        "device": "eth0",
        "gateway": "172.18.0.1",
        "priority": 18,
        "table": 254,
        "contradicted": None,
    }


async def test_the_kernel_is_asked_too_and_a_contradiction_is_told() -> None:
    netlink = await planned("full")
    assert (await explain_live(netlink, NUMBERS, Flow(WORLD4))).contradicted == ""

    class Other(FakeNetlink):
        async def route_device(self, flow: Flow) -> str | None:
            return None if flow.mark else "eth7"

    other = Other()
    other.links, other.addresses, other.routes = netlink.links, netlink.addresses, netlink.routes
    other.rules = netlink.rules
    said = await explain_live(other, NUMBERS, Flow(WORLD4))
    assert "but the kernel says: by eth7" in said.as_text()
    assert (await explain_live(other, NUMBERS, Flow(WORLD4, mark=0x1000))).contradicted == "rejected"
