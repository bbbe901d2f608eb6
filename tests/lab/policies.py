"""Policies of the kill switch as the lab loads them, and the namespace with one cable that they police."""

from collections.abc import Iterator
from ipaddress import ip_address, ip_network

import pytest

from entrypoint.addresses import Destination, Mark, Ports
from entrypoint.firewall.policy import FullTunnel, HostFull, ProxyTunnel
from tests.cloudflare.netns import Namespace

EDGE = Destination(ip_address("162.159.192.1"), 2408, "udp")
TUNNEL = (ip_address("172.16.0.2"), ip_address("2606:4700:110:8a36::2"))
SHADOWSOCKS = (Ports(8388, 8388, "tcp"), Ports(8388, 8388, "udp"))
FULL = FullTunnel(
    device="wg0",
    addresses=TUNNEL,
    endpoints=frozenset({EDGE}),
    neighbours=(ip_network("10.1.0.0/24"), ip_network("fd00:1::/64")),
    shadowsocks=SHADOWSOCKS,
)
PROXY = ProxyTunnel(device="wg0", addresses=TUNNEL, shadowsocks=SHADOWSOCKS, endpoints=frozenset({EDGE}))
TAILSCALE = Mark(0x80000, 0xFF0000)
HOST = HostFull(
    device="wg0",
    null_device="ssw-null",
    addresses=TUNNEL,
    uplinks=("eth0",),
    endpoints=frozenset({EDGE}),
    neighbours=FULL.neighbours,
    shadowsocks=SHADOWSOCKS,
    listening=(22,),
    foreign=(TAILSCALE,),
)


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    made = Namespace.new()
    made.ip(
        "link add eth0 type veth peer far",
        "link set eth0 up address 02:00:00:00:00:01",
        "link set far up address 02:00:00:00:00:02",
        *(f"address add {one} dev eth0" for one in ("203.0.113.9/24", "10.1.0.2/24")),
        *(f"address add {one} dev eth0 nodad" for one in ("2001:db8:7::7/64", "fd00:1::2/64")),
        *(
            f"neigh add {one} dev eth0 lladdr 02:00:00:00:00:02"
            for one in ("203.0.113.1", "10.1.0.1", "2001:db8:7::1", "fd00:1::1")
        ),
        "route add default via 203.0.113.1",
        "route add default via 2001:db8:7::1",
    )
    yield made
    made.close()
