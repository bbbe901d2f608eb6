"""Policies of the kill switch, and a chain's lines in a ruleset."""

from ipaddress import ip_address, ip_network

from entrypoint.addresses import Destination, Mark, Ports
from entrypoint.firewall.policy import FullTunnel, HostFull, ProxyTunnel

EDGE = Destination(ip_address("162.159.192.1"), 2408, "udp")
EDGE6 = Destination(ip_address("2606:4700:d0::a29f:c001"), 500, "udp")
TUNNEL = (ip_address("172.16.0.2"), ip_address("2606:4700:110::2"))
SHADOWSOCKS = (Ports(8388, 8388, "tcp"), Ports(8388, 8388, "udp"))
FULL = FullTunnel(
    device="wg0",
    addresses=TUNNEL,
    endpoints=frozenset({EDGE, EDGE6}),
    neighbours=(ip_network("172.18.0.0/16"), ip_network("172.18.7.0/24")),
    shadowsocks=SHADOWSOCKS,
    input_ports=(Ports(80, 90, "tcp"),),
)
PROXY = ProxyTunnel(device="wg0", addresses=TUNNEL, shadowsocks=SHADOWSOCKS, endpoints=frozenset({EDGE}))
HOST = HostFull(
    device="wg0",
    null_device="ssw-null",
    addresses=TUNNEL,
    uplinks=("eth0", "eth1"),
    endpoints=frozenset({EDGE}),
    neighbours=(ip_network("172.17.0.0/16"), ip_network("169.254.0.0/16")),
    shadowsocks=SHADOWSOCKS,
    listening=(22, 443),
    input_ports=(Ports(53, 53, "udp"), Ports(80, 80, "tcp")),
    foreign=(Mark(0x80000, 0xFF0000),),
)


def chain(text: str, name: str) -> list[str]:
    """The rules of one chain, its hook first."""
    body = text.split(f"\tchain {name} {{\n")[1].split("\n\t}")[0]
    return [line.strip() for line in body.splitlines()]
