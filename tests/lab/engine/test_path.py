"""Our engine where the path outside changes, or is not as it should be (the ends are drawn in ends.py)."""

import contextlib
import socket
import time

import pytest

from tests.conftest import Record
from tests.lab.engine.ends import INNER, MTU, OUTER, PORT, Ends, inside
from tests.lab.engine.traffic import Harm, both_ways, relay
from tests.lab.product import eventually

pytestmark = pytest.mark.lab

MB = 1 << 20
IP_RECVTOS = 13
CONGESTED = 3


@pytest.mark.parametrize("outer", [4, 6])
@pytest.mark.parametrize("narrow", ["link", "route"])
def test_a_path_that_carries_less(ours: Ends, outer: int, narrow: str) -> None:
    """A batch is refused as a whole, and goes datagram by datagram, which the kernel cuts.

    Stock wireguard-go sends nothing over such a path.
    """
    ours.connect(outer)
    both_ways(ours, 4, MB)
    size = 1280 if outer == 6 else 1000
    prefix = "2001:db8::/64" if outer == 6 else "192.0.2.0/24"
    for end in ours.near, ours.far:
        if narrow == "link":
            end.ip(f"link set wire mtu {size}")
        else:
            end.ip(f"-{outer} route replace {prefix} dev wire mtu lock {size}")
    both_ways(ours, 4, MB)


def test_an_mtu_that_changes_while_running(asking: Ends) -> None:
    asking.connect()
    for size in (1420, 1400, 9000, MTU):
        for end in asking.near, asking.far:
            end.ip(f"link set {end.name} mtu {size}")
        both_ways(asking, 4, MB)


def test_another_address_is_followed_at_once(asking: Ends, record: Record) -> None:
    asking.connect()
    asking.near.ip("address del 192.0.2.1/24 dev wire")
    asking.near.ip("address replace 192.0.2.5/24 dev wire")
    took = asking.passing()
    record("another uplink address", f"packets pass after {took * 1000:.0f} ms (limit 100 ms)")
    assert took < 0.1
    assert asking.far.ask("get=1")["endpoint"].startswith("192.0.2.5:")


def test_another_source_by_route_is_followed_at_once(asking: Ends) -> None:
    asking.connect()
    asking.near.ip("route replace 192.0.2.0/24 dev wire src 192.0.2.5")
    assert asking.passing() < 0.1
    assert asking.far.ask("get=1")["endpoint"].startswith("192.0.2.5:")


def test_a_peer_that_roams_is_followed(answering: Ends) -> None:
    answering.connect()
    answering.near.ip("address del 192.0.2.1/24 dev wire")
    answering.near.ip("address replace 192.0.2.5/24 dev wire")
    answering.passing(20)
    both_ways(answering, 4, MB)
    assert answering.far.ask("get=1")["endpoint"].startswith("192.0.2.5:")


def test_it_answers_from_where_it_was_asked(answering: Ends) -> None:
    answering.far.configure(answering.near, None)
    answering.near.configure(answering.far, f"192.0.2.6:{PORT}")
    answering.passing()
    both_ways(answering, 4, MB)
    assert answering.near.ask("get=1")["endpoint"] == f"192.0.2.6:{PORT}"
    # Where that address is gone, it is reached at another one, and answers from there.
    answering.far.ip("address del 192.0.2.6/24 dev wire")
    answering.near.ask("set=1", f"public_key={answering.far.public}", f"endpoint=192.0.2.2:{PORT}")
    answering.passing()


def test_endpoints_of_the_other_family_need_no_other_engine(ours: Ends) -> None:
    """Stock wireguard-go cannot answer by IPv6 once it has answered by IPv4."""
    ours.connect(4)
    for address in f"[{OUTER[6][1]}]", OUTER[4][1], f"[{OUTER[6][1]}]":
        ours.near.configure(ours.far, f"{address}:{PORT}")
        ours.passing()
        assert ours.far.ask("get=1")["endpoint"].startswith("[" if address[0] == "[" else "192")


def test_congestion_is_told_and_no_class_leaks(asking: Ends) -> None:
    """RFC 6040: outside are the inner packet's congestion bits and nothing else of its class."""
    asking.connect()
    with inside(asking.far.name):
        wire = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0800))
    with wire, asking.socket("near", 4) as near:
        wire.bind(("wire", 0x0800))
        wire.settimeout(2)
        for class_ in (0, 1, 2, 3, 0xB8 | 2, 0x20):
            with contextlib.suppress(BlockingIOError):
                wire.setblocking(False)
                while True:
                    wire.recv(2_000)
            wire.settimeout(2)
            near.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, class_)
            near.sendto(bytes(333), (INNER[4][1], 9))
            while len(packet := wire.recv(2_000)) < 333:
                pass
            assert packet[1] == class_ & 3
            assert packet[6] & 0x40 == 0, "as the kernel's WireGuard: it may be cut"


def test_congestion_met_outside_arrives_inside(asking: Ends) -> None:
    with relay(asking, Harm(class_=CONGESTED)):
        # What is not capable of it is lost instead (RFC 6040), handshakes and keepalives are not.
        asking.far.configure(asking.near, None)
        asking.near.configure(asking.far, f"{OUTER[4][1]}:9000")
        with asking.socket("near", 4) as near, asking.socket("far", 4) as far:
            near.bind((INNER[4][0], 9))
            near.setsockopt(socket.IPPROTO_IP, IP_RECVTOS, 1)
            near.settimeout(0.1)
            seen: dict[int, int] = {}
            deadline = time.monotonic() + 5
            while len(seen) < 2 and time.monotonic() < deadline:
                for class_ in (0, 1, 2):
                    far.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, class_)
                    far.sendto(bytes([class_]), (INNER[4][0], 9))
                with contextlib.suppress(TimeoutError):
                    while True:
                        payload, notes, _, _ = near.recvmsg(10, 100)
                        seen[payload[0]] = notes[0][2][0]
        assert seen == {1: CONGESTED, 2: CONGESTED}


@pytest.mark.timeout(240)
def test_a_peer_that_was_silent_for_long_is_found_again(asking: Ends, record: Record) -> None:
    """The library gives up after 90 s; a keepalive is a reason to go on."""
    asking.near.configure(asking.far, f"{OUTER[4][1]}:{PORT}", keepalive=5)
    asking.far.kill()
    with asking.socket("far", 4) as instead:
        instead.bind((OUTER[4][1], PORT))
        instead.settimeout(12)
        until = time.monotonic() + 100
        while time.monotonic() < until:
            instead.recv(200)  # it goes on asking
    asking.far.start()
    asking.far.configure(asking.near, None)
    back = time.monotonic()
    eventually(lambda: asking.near.ask("get=1")["last_handshake_time_sec"] != "0", "a handshake", 12)
    record("a peer silent for 100 s", f"found again after {time.monotonic() - back:.1f} s, by a keepalive")
    asking.passing()


@pytest.mark.timeout(240)
def test_keys_change_under_load(asking: Ends, record: Record) -> None:
    """After two minutes the one that asked makes new keys."""
    asking.connect()
    first = asking.near.ask("get=1")["last_handshake_time_sec"]
    begun = time.monotonic()
    count = 0
    while asking.near.ask("get=1")["last_handshake_time_sec"] == first:
        assert time.monotonic() < begun + 140
        both_ways(asking, 4 if count % 2 else 6, MB, connections=2)
        count += 1
    both_ways(asking, 4, 4 * MB)
    record("keys changed under load", f"after {time.monotonic() - begun:.0f} s and {4 * count} MB")
