"""Runs in the host's network: hears every frame of a bridge, judges what some stations send.

    python -m tests.image.observer BRIDGE STATION NETWORK… -- PORT…

STATION is how their MACs begin, NETWORK what is on their link, PORT what they serve. On SIGUSR1 it prints a
line of JSON about the time since the last one: `counts` by reason, `leaks` by kind, how many were `missed`.
"""

import json
import select
import signal
import socket
import struct
import sys
from collections import Counter
from ipaddress import ip_network

from tests.cloudflare.config import (
    API_ADDRESSES,
    API_NAME,
    EDGE_NAME,
    EDGE_PORTS,
    ENDPOINTS4,
    ENDPOINTS6,
    ORIGIN_ADDRESSES,
    TEAM_NAME,
)
from tests.lab.wire import (
    SNAP,
    Allowed,
    Network,
    Packet,
    called,
    looked_up,
    neighbours,
    parse,
    served,
    wireguard,
)


def on_link(networks: list[Network]) -> Allowed:
    """Everything on the link, except DNS: no neighbour is a resolver."""

    def match(packet: Packet) -> bool:
        far = packet.destination
        near = far is not None and any(far in one for one in networks if one.version == far.version)
        return near and packet.destination_port != 53

    return Allowed("on link", match)


def refusals() -> Allowed:
    """The kernel's report to the edge that a datagram has no receiver: WireGuard's process was killed."""

    def match(packet: Packet) -> bool:
        # Destination unreachable: type 3 of ICMP, type 1 of ICMPv6.
        refusal = (packet.kind, packet.payload[:1]) in (("icmp", b"\x03"), ("icmp6", b"\x01"))
        return refusal and (packet.destination in ENDPOINTS4 or packet.destination in ENDPOINTS6)

    return Allowed("refusals", match)


def main() -> None:
    """Watch until SIGTERM."""
    split = sys.argv.index("--")
    bridge, station, *links = sys.argv[1:split]
    allowed = [
        wireguard([ENDPOINTS4, ENDPOINTS6], EDGE_PORTS),
        refusals(),
        neighbours(),
        called("API", API_ADDRESSES, 443),
        # The edge's name is what an outage looks up outside the tunnel (docs/security.md).
        looked_up({API_NAME, TEAM_NAME, EDGE_NAME}, ORIGIN_ADDRESSES),
        *(served(f"port {port}", int(port), ("tcp", "udp")) for port in sys.argv[split + 1 :]),
        on_link([ip_network(one) for one in links]),
    ]
    counts, leaks = Counter[str](), Counter[str]()
    wake, tell = socket.socketpair()
    signal.signal(signal.SIGUSR1, lambda *_: tell.send(b"."))
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as frames:
        frames.setsockopt(socket.SOL_SOCKET, 33, 64 << 20)  # SO_RCVBUFFORCE: nothing may be missed
        frames.bind((bridge, 0x0003))  # ETH_P_ALL
        # PACKET_ADD_MEMBERSHIP, PACKET_MR_PROMISC: a promiscuous bridge shows what it only forwards, too.
        frames.setsockopt(263, 1, struct.pack("iHH8s", socket.if_nametoindex(bridge), 1, 0, b""))
        print("watching", flush=True)
        while True:
            ready, _, _ = select.select([frames, wake], [], [])
            if frames in ready:
                frame = frames.recv(SNAP)
                if not frame[6:12].hex(":").startswith(station):
                    continue
                packet = parse(frame, from_host=True)
                reason = next((one.name for one in allowed if one.match(packet)), None)
                counts[reason or "leak"] += 1
                if reason is None:
                    leaks[f"{packet.kind} to {packet.destination} {packet.destination_port}"] += 1
            elif wake in ready:
                wake.recv(1)
                missed = struct.unpack("II", frames.getsockopt(263, 6, 8))[1]  # PACKET_STATISTICS
                print(json.dumps({"counts": counts, "leaks": leaks, "missed": missed}), flush=True)
                counts.clear()
                leaks.clear()


if __name__ == "__main__":
    main()
