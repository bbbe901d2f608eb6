"""Our engine and stock wireguard-go, each asking and answering (the ends are drawn in ends.py)."""

import base64
import contextlib
import ctypes
import hashlib
import os
import platform
import signal
import socket
import struct
import threading
import time

import pytest

from tests.conftest import Record
from tests.lab.engine.ends import INNER, MTU, OURS, OUTER, PORT, Ends, inside, run
from tests.lab.engine.traffic import Harm, both_ways, content, relay

pytestmark = pytest.mark.lab

MB = 1 << 20
COOKIE = 3
"""The type of a cookie reply."""


@pytest.mark.parametrize("outer", [4, 6])
def test_every_byte_arrives_both_ways(ends: Ends, outer: int) -> None:
    ends.connect(outer)
    for inner in 4, 6:
        both_ways(ends, inner, 8 * MB)
    assert int(ends.near.ask("get=1")["rx_bytes"]) > 64 * MB
    if ends.near.program == OURS:
        assert int(ends.near.status("VmRSS")) < 8 << 10


@pytest.mark.parametrize(
    "harm",
    [
        Harm(lost=0.01, twice=0.01, late=0.05),
        Harm(lost=0.01, twice=0.01, late=0.05, flipped=0.01),
        Harm(twice=1),
    ],
    ids=["loss", "flipped bits", "everything twice"],
)
def test_every_byte_arrives_over_a_bad_path(ends: Ends, harm: Harm) -> None:
    with relay(ends, harm):
        ends.connect(port=9000)
        for family in 4, 6:
            both_ways(ends, family, MB)
    assert harm.done > 100


def test_every_byte_arrives_with_nothing_to_offload(ours: Ends) -> None:
    """Kernels before 4.18, 5.0 and 6.2: no UDP_SEGMENT, no UDP_GRO, no USO, no TSO."""
    for end in ours.near, ours.far:
        end.prepare = refuse_offloads
        end.start()
    ours.connect()
    for family in 4, 6:
        both_ways(ours, family, 4 * MB)


def refuse_offloads() -> None:
    """Install a seccomp filter that knows no socket option of UDP and no TUNSETOFFLOAD, as an old kernel."""
    architecture, ioctl, setsockopt, getsockopt = {
        "x86_64": (0xC000003E, 16, 54, 55),
        "aarch64": (0xC00000B7, 29, 208, 209),
    }[platform.machine()]
    load, equal, answer = 0x20, 0x15, 0x06
    allowed, no_option, invalid = 0x7FFF0000, 0x00050000 | 92, 0x00050000 | 22
    # Code, jump if true, jump if false, operand. In seccomp_data: 0 number, 4 machine, 24 second argument.
    steps = [
        *((load, 0, 0, 4), (equal, 0, 9, architecture), (load, 0, 0, 0)),
        *((equal, 5, 0, setsockopt), (equal, 4, 0, getsockopt), (equal, 0, 5, ioctl)),
        *((load, 0, 0, 24), (equal, 0, 3, 0x400454D0), (answer, 0, 0, invalid)),
        *((load, 0, 0, 24), (equal, 1, 0, socket.IPPROTO_UDP)),
        *((answer, 0, 0, allowed), (answer, 0, 0, no_option)),
    ]
    program = b"".join(struct.pack("HBBI", *step) for step in steps)
    buffer = ctypes.create_string_buffer(program, len(program))
    head = struct.pack("HxxxxxxQ", len(steps), ctypes.addressof(buffer))
    libc = ctypes.CDLL(None)
    if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, ctypes.create_string_buffer(head, len(head)), 0, 0):
        os._exit(126)


def test_datagrams_of_every_size_come_back_in_order(ends: Ends) -> None:
    """Up to 60,000 bytes, which the kernel cuts into fragments."""
    ends.connect()
    sizes = [0, 1, 2, 511, MTU - 28, MTU - 27, MTU - 48, MTU - 47, 4_000, 9_001, 30_000, 60_000]
    for family in 4, 6:
        with ends.socket("far", family) as far, ends.socket("near", family) as near:
            far.bind((INNER[family][1], 0))
            far.setsockopt(socket.SOL_SOCKET, 33, 4 * MB)  # SO_RCVBUFFORCE
            near.settimeout(5)
            far.settimeout(5)
            near.connect(far.getsockname())
            for size in sizes:
                near.send(content(size, 1))
                got, sender = far.recvfrom(65_536)
                assert got == content(size, 1), size
                far.sendto(got, sender)
                assert near.recv(65_536) == got, size
            # A burst that is merged and cut again.
            for number in range(200):
                near.send(bytes([number]) * (900 if number % 20 else 17))
            assert [far.recv(2_000)[0] for _ in range(200)] == list(range(200))


def test_wrong_inner_checksums_are_never_accepted(asking: Ends) -> None:
    """Datagrams as an origin sends them, some of them damaged on their way to the edge."""
    asking.connect()
    with asking.socket("near", 4) as near:
        near.bind((INNER[4][0], 7))
        near.settimeout(1)
        near.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, MB)
        with inside(asking.far.name):
            raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
        with raw:
            for number in range(300):
                raw.sendto(damaged(number) if number % 3 == 1 else datagram(number), (INNER[4][0], 0))
        got = []
        with contextlib.suppress(TimeoutError):
            while True:
                got.append(near.recv(2_000))
    assert all(one == body(one[0] + 256 * one[1]) for one in got)
    numbers = [one[0] + 256 * one[1] for one in got]
    assert numbers == [number for number in range(300) if number % 3 != 1]
    counted = run("ip", "netns", "exec", asking.near.name, "cat", "/proc/net/snmp").split("Udp: ")
    names, values = (line.split() for line in counted[1:3])
    assert int(dict(zip(names, values, strict=False))["InCsumErrors"]) == 100


def body(number: int) -> bytes:
    return number.to_bytes(2, "little") + content(600, number % 200)


def datagram(number: int) -> bytes:
    """A packet with a right checksum, from the far end to port 7 at the near end."""
    payload = body(number)
    addresses = b"".join(map(socket.inet_aton, reversed(INNER[4])))
    length = 8 + len(payload)
    head = struct.pack(">HHHH", 9, 7, length, 0)
    summed = addresses + struct.pack(">HH", 17, length) + head + payload
    total = sum(struct.unpack(f">{len(summed) // 2}H", summed))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    udp = head[:6] + struct.pack(">H", 0xFFFF - total or 0xFFFF) + payload
    return struct.pack(">BBHHHBBH", 0x45, 0, 20 + length, number, 0x4000, 64, 17, 0) + addresses + udp


def damaged(number: int) -> bytes:
    packet = bytearray(datagram(number))
    packet[-1] ^= 0x10
    return bytes(packet)


def test_a_restarted_engine_is_back_at_once(asking: Ends, record: Record) -> None:
    """The one before it has just sent an initiation, and a responder drops a second within 20 ms."""
    asking.connect()
    took = []
    for _ in range(10):
        asking.near.start()
        asking.near.configure(asking.far, f"{OUTER[4][1]}:{PORT}")
        asking.near.start()
        begun = time.monotonic()
        asking.near.configure(asking.far, f"{OUTER[4][1]}:{PORT}")
        asking.passing()
        took.append(time.monotonic() - begun)
    record("started again twice in a row", f"packets pass after {max(took) * 1000:.0f} ms (slowest of 10)")
    assert max(took) < 1


def test_it_ends_cleanly_and_takes_its_socket_along(ours: Ends) -> None:
    ours.connect()
    engine = ours.near.engine
    assert engine
    ours.near.kill(signal.SIGTERM)
    assert engine.returncode == 0
    with pytest.raises(OSError, match=r"No such file"):
        ours.near.ask("get=1")
    ours.near.start()
    engine = ours.near.engine
    assert engine
    ours.near.ip(f"link del {ours.near.name}")
    assert engine.wait(2) == 0


def test_a_second_engine_is_refused(ours: Ends) -> None:
    for words in ([ours.near.name], ["nosuchlink"]):
        command = ["ip", "netns", "exec", ours.near.name, OURS, "-f", *words]
        with pytest.raises(Exception, match="exit status 1"):
            run(*command)
    ours.connect()


def test_wg_reads_it(ends: Ends) -> None:
    ends.connect()
    for end, other in ((ends.near, ends.far), (ends.far, ends.near)):
        shown = run("ip", "netns", "exec", end.name, "wg", "show", end.name, "dump").splitlines()
        assert len(shown) == 2
        peer = shown[1].split("\t")
        assert base64.b64decode(peer[0]) == bytes(other.key.public_key)
        assert peer[3] == "10.9.0.{0}/32,fd09::{0}/128".format(2 - end.side)
        assert abs(int(peer[4]) - time.time()) < 10


def test_a_peer_under_a_flood_is_reached_with_a_cookie(answering: Ends, record: Record) -> None:
    near, far = answering.near, answering.far
    far.configure(near, None)
    key = hashlib.blake2s(b"mac1----" + bytes(far.key.public_key)).digest()
    stop, defended = threading.Event(), threading.Event()

    def flood() -> None:
        with inside(near.name), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            while not stop.wait(0.002):
                for _ in range(20):
                    message = b"\1\0\0\0" + os.urandom(112)
                    mac = hashlib.blake2s(message, digest_size=16, key=key).digest()
                    sock.sendto(message + mac + bytes(16), (OUTER[4][1], PORT))
                    with contextlib.suppress(BlockingIOError):
                        if sock.recv(100, socket.MSG_DONTWAIT)[0] == COOKIE:
                            defended.set()

    thread = threading.Thread(target=flood)
    thread.start()
    try:
        assert defended.wait(5), "no cookie was required"
        near.configure(far, f"{OUTER[4][1]}:{PORT}")
        took = answering.passing(15)
    finally:
        stop.set()
        thread.join()
    record("thousands of false initiations a second", f"packets pass after {took:.1f} s, by a cookie")
    both_ways(answering, 4, MB)
