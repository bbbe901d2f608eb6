"""Watch ss-warp's uplink from inside its network; on SIGTERM print what crossed it.

    python -m examples.demo.observer EDGE...

Exits with 1 if anything crossed it except WireGuard to the edge, the registration, Shadowsocks and
neighbour discovery, or if frames were missed.
"""

import select
import signal
import socket
import struct
import sys
from collections import Counter
from ipaddress import ip_address, ip_network

from tests.cloudflare.config import EDGE_PORTS
from tests.lab.wire import SNAP, called, neighbours, parse, served, wireguard

UPLINK = "eth0"
WIREGUARD, SHADOWSOCKS, API, NEIGHBOURS = "wireguard", "shadowsocks", "api", "neighbours"
WORDS = {
    WIREGUARD: "WireGuard to the edge",
    SHADOWSOCKS: "Shadowsocks with the client",
    API: "the registration (HTTPS to the API)",
    NEIGHBOURS: "neighbour discovery (ARP, ND)",
}
OUTGOING = 4
"""Packet type of frames that this host sent (linux/if_packet.h)."""


def main() -> int:
    """Watch until SIGTERM; return the exit code."""
    edges = [ip_address(text) for text in sys.argv[1:]]
    allowed = [
        wireguard([ip_network(edge) for edge in edges], EDGE_PORTS),
        served(SHADOWSOCKS, 8388, ("tcp", "udp", "fragment")),
        called(API, edges, 443),
        neighbours(),
    ]
    counts, strange = Counter[str](), []
    wake, stop = socket.socketpair()
    signal.signal(signal.SIGTERM, lambda *_: stop.send(b"."))
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as frames:
        frames.setsockopt(socket.SOL_SOCKET, 33, 64 << 20)  # SO_RCVBUFFORCE: nothing may be missed
        frames.bind((UPLINK, 0x0003))  # ETH_P_ALL
        while True:
            ready, _, _ = select.select([frames, wake], [], [])
            if frames in ready:
                frame, address = frames.recvfrom(SNAP)
                packet = parse(frame, from_host=address[2] == OUTGOING)
                reason = next((one.name for one in allowed if one.match(packet)), None)
                counts[reason or "else"] += 1
                if reason is None:
                    strange.append(packet)
            elif wake in ready:
                break
        missed = struct.unpack("II", frames.getsockopt(263, 6, 8))[1]  # PACKET_STATISTICS
    for name, words in WORDS.items():
        print(f"  {counts[name]:6} frames  {words}")
    print(f"  {len(strange):6} frames  anything else")
    for one in strange[:10]:
        print(f"          {one}")
    if missed:
        print(f"  {missed} frames were missed")
    complete = not missed and counts[WIREGUARD] and counts[SHADOWSOCKS]
    return 0 if complete and not strange else 1


if __name__ == "__main__":
    sys.exit(main())
