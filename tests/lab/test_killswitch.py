"""The kill switch's rulesets in the real nftables, and what they do to packets.

eth0 ── far       one namespace; whatever leaves by eth0 is seen by a packet socket on far
203.0.113.9       neighbours' MAC addresses are given, so that nothing waits for ARP
"""

import json
import socket
import subprocess
import sys
from dataclasses import dataclass
from ipaddress import ip_address

import anyio
import pytest

from entrypoint.addresses import Destination
from entrypoint.firewall.killswitch import kill_switch
from entrypoint.firewall.policy import Closed, HostFull
from entrypoint.firewall.ruleset import release, ruleset
from entrypoint.linux.kernel_objects import SSSERVER_UID
from entrypoint.linux.nft import SystemNft
from tests.cloudflare.netns import Namespace
from tests.lab.policies import EDGE, FULL, HOST, PROXY, TUNNEL, namespace

__all__ = ["namespace"]

pytestmark = pytest.mark.lab
API = Destination(ip_address("2606:4700::1111"), 443, "tcp")
DOCKERS = """
add table ip nat
add chain ip nat out { type nat hook output priority -100; }
add rule ip nat out ip daddr 127.0.0.11 accept
"""

# Sends one UDP datagram for each row of (destination, port, source port, mark), all from sockets of one user:
# skuid is the file system uid at a socket's creation, and root may mark what is not root's.
SENDER = """
import ctypes, json, socket, sys
ctypes.CDLL(None).setfsuid(int(sys.argv[2]))
for to, port, source, mark in json.loads(sys.argv[1]):
    with socket.socket(socket.AF_INET6 if ":" in to else socket.AF_INET, socket.SOCK_DGRAM) as sock:
        if mark: sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
        if source: sock.bind(("", source))
        try: sock.sendto(f"to {to} {port} {source} {mark}".encode(), (to, port))
        except OSError: pass
"""


@dataclass(frozen=True)
class Packet:
    to: str
    port: int = 9
    source: int = 0
    mark: int = 0

    @property
    def payload(self) -> bytes:
        return f"to {self.to} {self.port} {self.source} {self.mark}".encode()


END = Packet("10.1.0.1", 4242, mark=0x1000)


def leaving(namespace: Namespace, uid: int, *packets: Packet) -> set[Packet]:
    """Send them, and return those that were on the wire."""
    with namespace.entered(), socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as wire:
        wire.bind(("far", 3))  # ETH_P_ALL
        wire.settimeout(5)
        rows = json.dumps([(p.to, p.port, p.source, p.mark) for p in packets])
        subprocess.run([sys.executable, "-c", SENDER, rows, str(uid)], check=True)
        # The wire keeps the order, so the end marker, which every policy lets root send, is the last.
        rows = json.dumps([(END.to, END.port, END.source, END.mark)])
        subprocess.run([sys.executable, "-c", SENDER, rows, "0"], check=True)
        seen: list[bytes] = []
        while not seen or END.payload not in seen[-1]:
            seen.append(wire.recv(4096))
    return {packet for packet in packets if any(packet.payload in frame for frame in seen)}


PUBLIC = (Packet("8.8.8.8"), Packet("2001:4860::8"))
NEIGHBOURS = (Packet("10.1.0.1"), Packet("fd00:1::1"))
MARKED = Packet("162.159.192.1", 2408, mark=0x1000)
MARKED_ELSEWHERE = (Packet("162.159.192.1", 2409, mark=0x1000), Packet("8.8.8.8", 2408, mark=0x1000))
UNMARKED = Packet("162.159.192.1", 2408)
DHCP = Packet("203.0.113.1", 67, source=68)
ANSWER = Packet("8.8.8.8", 999, source=8388)


def test_without_it_every_packet_is_seen(namespace: Namespace) -> None:
    everything = {*PUBLIC, *NEIGHBOURS, MARKED, *MARKED_ELSEWHERE, UNMARKED, DHCP}
    assert leaving(namespace, 0, *everything) == everything
    theirs = {*PUBLIC, *NEIGHBOURS, UNMARKED, ANSWER}
    assert leaving(namespace, SSSERVER_UID, *theirs) == theirs
    namespace.nft(ruleset(FULL))
    namespace.nft(release())
    assert leaving(namespace, 0, *everything) == everything


def test_full_lets_out_what_the_design_says(namespace: Namespace) -> None:
    namespace.nft(ruleset(FULL))
    packets = (*PUBLIC, *NEIGHBOURS, MARKED, *MARKED_ELSEWHERE, UNMARKED, DHCP)
    assert leaving(namespace, 0, *packets) == {*NEIGHBOURS, MARKED}
    assert leaving(namespace, 4711, *PUBLIC, *NEIGHBOURS) == {*NEIGHBOURS}


def test_a_host_lets_out_the_same_and_what_another_vpn_marks(namespace: Namespace) -> None:
    namespace.nft(ruleset(HOST))
    theirs = Packet("8.8.8.8", mark=0x80000)
    packets = (*PUBLIC, *NEIGHBOURS, MARKED, *MARKED_ELSEWHERE, UNMARKED, DHCP, theirs)
    assert leaving(namespace, 0, *packets) == {*NEIGHBOURS, MARKED, theirs}
    namespace.nft(
        ruleset(HostFull(device="wg0", null_device="ssw-null", addresses=TUNNEL, uplinks=("eth7",)))
    )
    everything = {*PUBLIC, *NEIGHBOURS, UNMARKED}
    assert leaving(namespace, 0, *everything) == everything, "of other interfaces nothing is policed"


def test_ssserver_only_answers(namespace: Namespace) -> None:
    for policy in (FULL, PROXY, HOST):
        namespace.nft(ruleset(policy))
        assert leaving(namespace, SSSERVER_UID, *PUBLIC, *NEIGHBOURS, UNMARKED, ANSWER) == set(), policy


def test_kernel_wireguard_sends_what_ssserver_gave_it(namespace: Namespace) -> None:
    """Its packets carry the mark, and the user of what is inside them."""
    for policy in (FULL, PROXY, HOST):
        namespace.nft(ruleset(policy))
        assert leaving(namespace, SSSERVER_UID, MARKED, *MARKED_ELSEWHERE) == {MARKED}, policy


def test_proxy_leaves_everybody_else_alone(namespace: Namespace) -> None:
    namespace.nft(ruleset(PROXY))
    assert leaving(namespace, 0, *PUBLIC, *NEIGHBOURS, UNMARKED) == {*PUBLIC, *NEIGHBOURS, UNMARKED}


def test_closed_lets_out_the_holes_alone(namespace: Namespace) -> None:
    end = Destination(ip_address(END.to), END.port, "udp")
    namespace.nft(ruleset(Closed(holes=frozenset({end}))))
    assert leaving(namespace, 0, *PUBLIC, *NEIGHBOURS, MARKED) == set()
    namespace.nft(ruleset(Closed(holes=frozenset({end, EDGE}))))
    assert leaving(namespace, 0, *PUBLIC, *NEIGHBOURS, *MARKED_ELSEWHERE, MARKED, UNMARKED) == {MARKED}


def test_refused_packets_fail_at_once(namespace: Namespace) -> None:
    namespace.nft(ruleset(Closed()))
    with namespace.entered():
        for family, to in ((socket.AF_INET, "8.8.8.8"), (socket.AF_INET6, "2001:4860::8")):
            with socket.socket(family, socket.SOCK_STREAM) as sock:
                # Before the first repetition, which is after a second.
                sock.settimeout(0.9)
                with pytest.raises(ConnectionRefusedError):
                    sock.connect((to, 443))


def test_other_tables_survive_and_drift_is_noticed(namespace: Namespace) -> None:
    namespace.nft(DOCKERS)

    async def play() -> None:
        async with kill_switch(SystemNft()) as switch:
            for policy in (FULL, PROXY, HOST, Closed()):
                await switch.set(policy)
                assert await switch.intact()
                namespace.nft("insert rule inet ss_warp output accept")
                assert not await switch.intact()
                await switch.restore()
                assert await switch.intact()
            namespace.nft("delete table arp ss_warp")
            assert not await switch.intact()
            await switch.set(FULL)
            with pytest.raises(OSError, match="nft"):
                await SystemNft().load(ruleset(PROXY) + "nonsense\n")
            assert await switch.intact()
        assert "drop" in await SystemNft().listing("inet", "ss_warp")

    with namespace.entered():
        anyio.run(play)
    assert "127.0.0.11" in "".join(namespace.output("nft", "list", "ruleset"))
