"""Our engine where the path outside changes, or is not as it should be (the ends are drawn in ends.py)."""

import contextlib
import socket
import time
from collections.abc import Iterator

import pytest

from tests.conftest import Record
from tests.lab.engine.ends import INNER, MTU, OURS, OUTER, PORT, STOCK, End, Ends, inside
from tests.lab.engine.traffic import Harm, both_ways, relay

pytestmark = pytest.mark.lab

MB = 1 << 20
IP_RECVTOS = 13
CONGESTED = 3


@pytest.fixture
def ends() -> Iterator[Ends]:
    with Ends(End(0, OURS), End(1, STOCK)) as ends:
        yield ends


@pytest.fixture
def answering() -> Iterator[Ends]:
    with Ends(End(0, STOCK), End(1, OURS)) as ends:
        yield ends


@pytest.mark.parametrize("outer", [4, 6])
@pytest.mark.parametrize("narrow", ["link", "route"])
def test_a_path_that_carries_less(outer: int, narrow: str) -> None:
    """A batch is refused as a whole, and goes datagram by datagram, which the kernel cuts.

    Stock wireguard-go sends nothing over such a path.
    """
    with Ends(End(0, OURS), End(1, OURS)) as ends:
        ends.connect(outer)
        both_ways(ends, 4, MB)
        size = 1280 if outer == 6 else 1000
        prefix = "2001:db8::/64" if outer == 6 else "192.0.2.0/24"
        for end in ends.near, ends.far:
            if narrow == "link":
                end.ip(f"link set wire mtu {size}")
            else:
                end.ip(f"-{outer} route replace {prefix} dev wire mtu lock {size}")
        both_ways(ends, 4, MB)


def test_an_mtu_that_changes_while_running(ends: Ends) -> None:
    ends.connect()
    for size in (1420, 1400, 9000, MTU):
        for end in ends.near, ends.far:
            end.ip(f"link set {end.name} mtu {size}")
        both_ways(ends, 4, MB)


def test_another_address_is_followed_at_once(ends: Ends, record: Record) -> None:
    ends.connect()
    ends.near.ip("address del 192.0.2.1/24 dev wire")
    ends.near.ip("address replace 192.0.2.5/24 dev wire")
    took = ends.passing()
    record("another uplink address", f"packets pass after {took * 1000:.0f} ms (limit 100 ms)")
    assert took < 0.1
    assert ends.far.ask("get=1")["endpoint"].startswith("192.0.2.5:")


def test_another_source_by_route_is_followed_at_once(ends: Ends) -> None:
    ends.connect()
    ends.near.ip("route replace 192.0.2.0/24 dev wire src 192.0.2.5")
    assert ends.passing() < 0.1
    assert ends.far.ask("get=1")["endpoint"].startswith("192.0.2.5:")


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


def test_endpoints_of_the_other_family_need_no_other_engine() -> None:
    """Stock wireguard-go cannot answer by IPv6 once it has answered by IPv4."""
    with Ends(End(0, OURS), End(1, OURS)) as ends:
        ends.connect(4)
        for address in f"[{OUTER[6][1]}]", OUTER[4][1], f"[{OUTER[6][1]}]":
            ends.near.configure(ends.far, f"{address}:{PORT}")
            ends.passing()
            assert ends.far.ask("get=1")["endpoint"].startswith("[" if address[0] == "[" else "192")


def test_congestion_is_told_and_no_class_leaks(ends: Ends) -> None:
    """RFC 6040: outside are the inner packet's congestion bits and nothing else of its class."""
    ends.connect()
    with inside(ends.far.name):
        wire = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0800))
    with wire, ends.socket("near", 4) as near:
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


def test_congestion_met_outside_arrives_inside() -> None:
    with Ends(End(0, OURS), End(1, STOCK)) as ends, relay(ends, Harm(class_=CONGESTED)):
        # What is not capable of it is lost instead (RFC 6040), handshakes and keepalives are not.
        ends.far.configure(ends.near, None)
        ends.near.configure(ends.far, f"{OUTER[4][1]}:9000")
        with ends.socket("near", 4) as near, ends.socket("far", 4) as far:
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
def test_a_peer_that_was_silent_for_long_is_found_again(ends: Ends, record: Record) -> None:
    """The library gives up after 90 s; a keepalive is a reason to go on."""
    ends.near.configure(ends.far, f"{OUTER[4][1]}:{PORT}", keepalive=5)
    ends.far.kill()
    silent = time.monotonic()
    while time.monotonic() < silent + 100:
        time.sleep(1)  # nothing can be waited for: silence is what is tested
    ends.far.start()
    ends.far.configure(ends.near, None)
    back = time.monotonic()
    while ends.near.ask("get=1")["last_handshake_time_sec"] == "0":
        assert time.monotonic() < back + 12
        time.sleep(0.05)
    record("a peer silent for 100 s", f"found again after {time.monotonic() - back:.1f} s, by a keepalive")
    ends.passing()


@pytest.mark.timeout(240)
def test_keys_change_under_load(ends: Ends, record: Record) -> None:
    """After two minutes the one that asked makes new keys."""
    ends.connect()
    first = ends.near.ask("get=1")["last_handshake_time_sec"]
    begun = time.monotonic()
    count = 0
    while ends.near.ask("get=1")["last_handshake_time_sec"] == first:
        assert time.monotonic() < begun + 140
        both_ways(ends, 4 if count % 2 else 6, MB, connections=2)
        count += 1
    both_ways(ends, 4, 4 * MB)
    record("keys changed under load", f"after {time.monotonic() - begun:.0f} s and {4 * count} MB")
