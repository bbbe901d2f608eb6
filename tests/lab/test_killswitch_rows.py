"""Each row that lets something out, imitated: whoever has no mark and is no reply gets nowhere in clear.

eth0 ── far       the namespace of test_killswitch.py; every frame on far is looked at
"""

import json
import re
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from ipaddress import ip_address

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from entrypoint.addresses import Ports
from entrypoint.firewall.policy import Closed, HostFull, Policy, ProxyTunnel
from entrypoint.firewall.ruleset import ruleset
from tests.cloudflare.netns import Namespace
from tests.conftest import Record
from tests.lab.policies import EDGE, FULL, HOST, PROXY, namespace
from tests.lab.wire import parse
from tests.pace import REPEAT

__all__ = ["namespace"]

pytestmark = pytest.mark.lab
SERVED = (Ports(5005, 5006, "udp"), Ports(8080, 8080, "tcp"))
POLICIES: dict[str, Policy] = {
    "closed": Closed(holes=frozenset({EDGE}), input_ports=SERVED),
    "full": replace(FULL, input_ports=SERVED),
    "proxy": PROXY,
    "host": replace(HOST, input_ports=SERVED, foreign=()),
}
ANYBODY, SSSERVER = 65534, 58388
PUBLIC = ("8.8.8.8", "9.9.9.9", str(EDGE.address), "2001:4860::8", "2620:fe::fe")
"""Where the edge is, too: without the mark it is a place like any other."""
EACH = 40
"""Packets for each row and example."""
NUMBER = re.compile(r"\b[0-9]{1,5}\b")
END = ("10.1.0.1", 4242)

# Each row is (destination, port, protocol, source port): UDP, UDP-Lite, TCP and SCTP by sockets that need no
# capability, of a user that is the file system uid at their creation.
SENDER = """
import ctypes, json, socket, sys
ctypes.CDLL(None).setfsuid(int(sys.argv[2]))
for to, port, protocol, source in json.loads(sys.argv[1]):
    kind = socket.SOCK_DGRAM if protocol in (17, 136) else socket.SOCK_STREAM
    family = socket.AF_INET6 if ":" in to else socket.AF_INET
    try:
        with socket.socket(family, kind | socket.SOCK_NONBLOCK, protocol) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(("", source))
            sock.connect((to, port))
            sock.send(b"imitated")
    except OSError:
        pass
"""
type Packet = tuple[str, int, int, int]


def rows(policy: Policy) -> list[str]:
    """Return what the policy lets out, line by line, with what leads there."""
    text = ruleset(policy)
    chains = re.findall(r"chain (?:output|ssserver) \{\n(.*?)\n\t\}", text, re.DOTALL)
    return [line.strip() for chain in chains for line in chain.splitlines() if line.endswith("accept")]


def imitations(every: Sequence[str]) -> st.SearchStrategy[list[Packet]]:
    """Return packets with the ports and protocols that these rows name, and with any others."""
    named = {int(one) for row in every for one in NUMBER.findall(row)}
    ports = st.sampled_from(sorted(one for one in {8388, *named} if 0 < one < 1 << 16)) | st.integers(
        0, 65535
    )
    packet = st.tuples(st.sampled_from(PUBLIC), ports.filter(bool), st.sampled_from((6, 17, 132, 136)), ports)
    return st.lists(packet, min_size=EACH * len(every), max_size=EACH * len(every))


def send(packets: Sequence[tuple[str, int, int, int]], uid: int) -> None:
    subprocess.run([sys.executable, "-c", SENDER, json.dumps(packets), str(uid)], check=True)


def in_clear(namespace: Namespace, packets: Sequence[Packet], uid: int) -> list[str]:
    """Send them; return what came by on the way to a public address."""
    return list(_seen(namespace, packets, uid))


def _seen(namespace: Namespace, packets: Sequence[Packet], uid: int) -> Iterator[str]:
    with namespace.entered(), socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as wire:
        wire.setsockopt(socket.SOL_SOCKET, 33, 1 << 24)  # SO_RCVBUFFORCE: SO_RCVBUF is cut to rmem_max
        wire.bind(("far", 3))  # ETH_P_ALL
        wire.settimeout(20)
        send(packets, uid)
        # The wire keeps the order. Every policy lets the end marker pass.
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, 0x1000)
            sock.sendto(b"the end", END)
        while True:
            packet = parse(wire.recv(2048), from_host=True)
            if b"the end" in packet.payload:
                return
            if str(packet.destination) in PUBLIC:
                yield str(packet)


@pytest.mark.parametrize("name", POLICIES)
def test_no_row_can_be_imitated(namespace: Namespace, name: str, record: Record) -> None:
    end = replace(EDGE, address=ip_address(END[0]), port=END[1])
    policy = POLICIES[name]
    policy = replace(policy, holes=frozenset({end})) if not isinstance(policy, ProxyTunnel) else policy
    every = rows(policy)
    assert len(every) >= 4
    # Of a host, and in `proxy`, what others send is not judged, or by rules of its own.
    users = (SSSERVER,) if isinstance(policy, ProxyTunnel) else (ANYBODY, SSSERVER)
    control = in_clear(namespace, [(one, 443, 17, 0) for one in PUBLIC], ANYBODY)
    assert len(control) == len(PUBLIC), "without it every packet is seen"
    namespace.nft(ruleset(policy))
    sent = 0

    @settings(max_examples=2 * REPEAT, suppress_health_check=[*HealthCheck])
    @given(imitations(every), st.sampled_from(users))
    def imitated(packets: list[Packet], uid: int) -> None:
        nonlocal sent
        sent += len(packets)
        assert not in_clear(namespace, packets, uid)

    imitated()
    who = " and ".join(map(str, users))
    record(f"rows of {name}, imitated", f"{sent} packets by {who} for {len(every)} rows, 0 in clear")
    if isinstance(policy, HostFull):
        assert any("ct state untracked" in row for row in every)
