"""Every wrong client gets the same reaction from ssserver, as it is shipped and configured (X-*): a reset.

C  wrong clients
R  another sslocal ──▶ a recorder on loopback, which keeps what an honest client would send
H  the product; what ssserver opens for anybody would go out by wg0, where an observer sits
"""

import os
import random
import selectors
import socket
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Literal

import pytest

from tests.conftest import Record
from tests.lab.client import shadowsocks_client
from tests.lab.product import eventually
from tests.lab.scene import TRACE4, TRACE6, Scene, serving
from tests.lab.topology import HOST, Lab
from tests.lab.wire import Wire, called, looked_up, neighbours
from tests.pace import REPEAT

pytestmark = pytest.mark.lab

METHOD = "2022-blake3-aes-128-gcm"
PORT, RECORDER = 8388, 9388
RESOLVERS = [TRACE4, TRACE6, ip_address("1.0.0.1"), ip_address("2606:4700:4700::1001")]
PATIENCE = 5.0
AT_ONCE = 200
"""Wrong clients that are connected together."""

type Kind = Literal["RST", "FIN", "data", "nothing"]


@dataclass(frozen=True, slots=True)
class Reaction:
    """What a client got for what it sent, and after how many seconds."""

    kind: Kind
    after: float


@pytest.fixture(scope="module")
def scene(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with serving(lab, tmp_path_factory.mktemp("wrong")) as scene:
        yield scene


@contextmanager
def nothing_opened(lab: Lab) -> Iterator[None]:
    """Leaving asserts that through wg0 went what health asks, and nothing else."""
    health = [looked_up(["cloudflare.com"], RESOLVERS), called("trace", [TRACE4, TRACE6], 443), neighbours()]
    with Wire(lab.name("H"), "wg0", health, near=True) as wire:
        yield
        opened = wire.leaks()
        assert not opened, f"{len(opened)} packets, as {opened[0]}"


def connected(lab: Lab) -> socket.socket:
    """Return a connection of C's to ssserver."""
    with lab.inside("C"):
        sock = socket.socket()
    sock.settimeout(PATIENCE)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.connect((str(HOST[0]), PORT))
    return sock


def reaction(sock: socket.socket, since: float) -> Reaction:
    """Return what comes next on this connection."""
    try:
        kind: Kind = "data" if sock.recv(1 << 16) else "FIN"
    except ConnectionResetError:
        kind = "RST"
    except TimeoutError:
        kind = "nothing"
    return Reaction(kind, time.monotonic() - since)


def reactions(lab: Lab, payloads: Sequence[bytes]) -> list[Reaction]:
    """Send each on a connection of its own; return what it brought, in the same order."""
    found: dict[int, Reaction] = {}
    for start in range(0, len(payloads), AT_ONCE):
        with ExitStack() as stack, selectors.DefaultSelector() as waiting:
            for number, payload in enumerate(payloads[start : start + AT_ONCE], start):
                sock = stack.enter_context(connected(lab))
                sock.sendall(payload)
                waiting.register(sock, selectors.EVENT_READ, (number, time.monotonic()))
            while waiting.get_map() and (ready := waiting.select(PATIENCE)):
                for key, _ in ready:
                    number, since = key.data
                    assert isinstance(key.fileobj, socket.socket)
                    found[number] = reaction(key.fileobj, since)
                    waiting.unregister(key.fileobj)
    return [found.get(number, Reaction("nothing", PATIENCE)) for number in range(len(payloads))]


def same(lab: Lab, what: str, payloads: Sequence[bytes], record: Record) -> None:
    """All of them are reset, and nothing is opened for any."""
    with nothing_opened(lab):
        got = reactions(lab, payloads)
    classes = Counter(one.kind for one in got)
    slowest = max(one.after for one in got)
    told = ", ".join(f"{count} {kind}" for kind, count in classes.items())
    record(what, f"{told}: {len(classes)} class (limit 1), 0 opened by wg0, slowest {slowest * 1000:.0f} ms")
    assert set(classes) == {"RST"}


def recorded(lab: Lab, directory: Path, password: str) -> bytes:
    """Return all that an honest client sends for one request before it is answered."""
    with lab.inside("R"):
        recorder = socket.create_server(("127.0.0.1", RECORDER))
    recorder.settimeout(PATIENCE)
    directory.mkdir()
    server = ip_address("127.0.0.1")
    with (
        recorder,
        shadowsocks_client(lab, directory, server, METHOD, password, port=RECORDER, place="R") as client,
    ):
        asking = client.tcp(TRACE4, 80)
        with asking:
            asking.sendall(b"GET /cdn-cgi/trace HTTP/1.1\r\nHost: 1.1.1.1\r\n\r\n")
            taken, _ = recorder.accept()
            with taken:
                taken.settimeout(0.5)
                said = b""
                with suppress(TimeoutError):
                    while part := taken.recv(1 << 16):
                        said += part
    return said


@pytest.fixture
def said(scene: Scene, tmp_path: Path) -> bytes:
    """What a client that knows the password says; the server has not heard it yet."""
    said = recorded(scene.lab, tmp_path / "honest", scene.product.secrets()["password"])
    assert len(said) > 100
    return said


def changed(said: bytes, *places: int) -> bytes:
    """Return it with other bytes at these places."""
    return bytes(byte ^ 0x55 if at in places else byte for at, byte in enumerate(said))


def test_x01_random_bytes_of_every_length(lab: Lab, scene: Scene, record: Record) -> None:
    lengths = [*range(1, 301), 402, 1000] * REPEAT
    random.Random(1).shuffle(lengths)
    same(lab, f"X-01: random, 1 to 300 bytes, {REPEAT} times each", [os.urandom(n) for n in lengths], record)


def test_x02_byte_by_byte(lab: Lab, scene: Scene, record: Record) -> None:
    with nothing_opened(lab), ExitStack() as stack:
        got = []
        for pause in 0.0, 0.01, 0.1:
            for _ in range(10):
                sock = stack.enter_context(connected(lab))
                begun = time.monotonic()
                sock.settimeout(pause or 0.001)
                for byte in os.urandom(400):
                    with suppress(ConnectionError):
                        sock.send(bytes([byte]))
                    one = reaction(sock, begun)
                    if one.kind != "nothing":
                        break
                got.append(one)
    classes = Counter(one.kind for one in got)
    record("X-02: byte by byte", f"{dict(classes)}: {len(classes)} class (limit 1), 0 opened by wg0")
    assert set(classes) == {"RST"}


def test_x03_around_the_lengths_that_a_server_may_wait_for(lab: Lab, scene: Scene, record: Record) -> None:
    lengths = [16, 17, 33, 34, 42, 43, 44, 49, 50, 51, 59, 60] * max(20, REPEAT)
    same(lab, "X-03: around the header's lengths", [os.urandom(n) for n in lengths], record)


def test_x04_x05_replayed_and_changed(lab: Lab, scene: Scene, said: bytes, record: Record) -> None:
    altered = [
        *(changed(said, 0), changed(said, *range(8), 62, 63), changed(said, 16), changed(said, 6, 16)),
        *(changed(said, *range(16, 33)), changed(said, 42), said[:42]),
    ]
    same(lab, "X-05: an honest client's first packet, changed", altered * REPEAT, record)
    first = time.monotonic()
    (served,) = reactions(lab, [said])
    assert served.kind == "data", "the method sees what is served"
    to_origin = ["ss", "-Htn", "dst", str(TRACE4), "dport", "80"]
    eventually(lambda: not lab.run("H", to_origin).stdout, "what was served has ended", 20)
    with nothing_opened(lab):
        after = {}
        for seconds in 0.3, 5.0, 31.0:
            eventually(lambda: time.monotonic() - first >= seconds, "its time has come", 60)  # noqa: B023
            (after[seconds],) = reactions(lab, [said])
    told = ", ".join(f"{one.kind} after {seconds:g} s" for seconds, one in after.items())
    record("X-04: replayed", f"{told}: served 0 times, 0 opened by wg0; the first time it was served")
    assert {one.kind for one in after.values()} == {"RST"}


def test_x06_the_same_twice(lab: Lab, scene: Scene, record: Record) -> None:
    payloads = [os.urandom(n) for n in (8, 43, 221, 500)] * REPEAT
    with nothing_opened(lab):
        once, twice = reactions(lab, payloads), reactions(lab, payloads)
    apart = max(abs(a.after - b.after) for a, b in zip(once, twice, strict=True))
    record("X-06: the same twice", f"same reaction, at most {apart * 1000:.0f} ms apart (limit 50)")
    assert {one.kind for one in (*once, *twice)} == {"RST"}
    assert apart <= 0.05


def test_x10_datagrams_bring_no_answer(lab: Lab, scene: Scene, said: bytes, record: Record) -> None:
    with lab.inside("C"):
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    payloads = [*(os.urandom(n) for n in range(1, 1401)), said]
    with sock, nothing_opened(lab):
        sock.connect((str(HOST[0]), PORT))
        sock.settimeout(1)
        for payload in payloads:
            sock.send(payload)
        with pytest.raises(TimeoutError):
            sock.recv(1 << 16)
    record("X-10: random datagrams of 1 to 1,400 bytes", f"{len(payloads)} sent, 0 answered, 0 opened by wg0")
    assert scene.client.trace(TRACE4).warp == "on"


def test_x11_another_key(lab: Lab, scene: Scene, tmp_path: Path, record: Record) -> None:
    strangers = [recorded(lab, tmp_path / str(n), "c3RyYW5nZXJzIHBhc3N3ZA==") for n in range(2)]
    assert min(map(len, strangers)) > 100
    same(lab, "X-11: a client with another key", strangers * REPEAT, record)


def test_x14_other_protocols(lab: Lab, scene: Scene, record: Record) -> None:
    hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + os.urandom(506)
    spoken = [
        *(b"GET / HTTP/1.1\r\nHost: 203.0.113.7\r\n\r\n", b"\r\n\r\n", b"HELP\r\n", hello),
        *(
            b"SSH-2.0-OpenSSH_9.2\r\n",
            b"\x05\x01\x00",
            b"\x04\x01\x00\x50\x01\x01\x01\x01\x00",
            b"\x00" * 100,
        ),
        *(b"CONNECT 1.1.1.1:80 HTTP/1.1\r\n\r\n", b"\x03\x00\x00\x13\x0e\xe0" + bytes(13), b"EHLO c\r\n"),
    ]
    same(lab, f"X-14: {len(spoken)} other protocols", spoken * REPEAT, record)
