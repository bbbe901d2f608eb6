"""What is sent through a tunnel to see whether it arrives, and a relay that harms it on the way."""

import hashlib
import random
import select
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.lab.engine.ends import INNER, OUTER, PORT, Ends, inside

PART = 1 << 16


def content(size: int, seed: int) -> bytes:
    return (hashlib.shake_128(bytes([seed])).digest(1 << 20) * (size // (1 << 20) + 1))[:size]


def received(sock: socket.socket, size: int) -> str:
    digest = hashlib.sha256()
    while size and (part := sock.recv(min(size, PART))):
        digest.update(part)
        size -= len(part)
    return digest.hexdigest()


def both_ways(ends: Ends, family: int, size: int, connections: int = 4, limit: float = 30) -> float:
    """Send `size` bytes each way over each of some TCP connections, all at once; return the seconds it took.

    Raises AssertionError unless every byte arrives as it was sent.
    """
    wrong: list[str] = []
    host = INNER[family][1]
    begun = time.monotonic()
    with ends.socket("far", family, socket.SOCK_STREAM) as listener:
        listener.bind((host, 0))
        listener.listen()
        listener.settimeout(limit)

        def one(sock: socket.socket, mine: int, theirs: int) -> None:
            with sock:
                sock.settimeout(limit)
                try:
                    sender = threading.Thread(target=sock.sendall, args=(content(size, mine),), daemon=True)
                    sender.start()
                    if received(sock, size) != hashlib.sha256(content(size, theirs)).hexdigest():
                        wrong.append(f"connection {mine}: wrong bytes")
                    sender.join()
                except OSError as error:
                    wrong.append(f"connection {mine}: {error}")

        threads = []
        for number in range(connections):
            caller = ends.socket("near", family, socket.SOCK_STREAM)
            caller.settimeout(limit)
            caller.connect(listener.getsockname())
            callee, _ = listener.accept()
            for sock, mine, theirs in ((caller, number, number + 100), (callee, number + 100, number)):
                threads.append(threading.Thread(target=one, args=(sock, mine, theirs), daemon=True))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []
    return time.monotonic() - begun


@dataclass
class Harm:
    """How often, of 1, which thing happens to a datagram."""

    lost: float = 0
    twice: float = 0
    late: float = 0
    flipped: float = 0
    class_: int = 0
    """The class of what leaves the relay."""
    dice: random.Random = field(default_factory=lambda: random.Random(1))
    done: int = 0

    def __call__(self, datagram: bytes) -> list[bytes]:
        """Return what arrives instead, now."""
        if self.dice.random() < self.lost:
            self.done += 1
            return []
        if self.dice.random() < self.flipped:
            self.done += 1
            spoilt = bytearray(datagram)
            spoilt[self.dice.randrange(len(spoilt))] ^= 1 << self.dice.randrange(8)
            return [bytes(spoilt)]
        if self.dice.random() < self.twice:
            self.done += 1
            return [datagram, datagram]
        return [datagram]


@contextmanager
def relay(ends: Ends, harm: Harm, port: int = 9000) -> Iterator[None]:
    """Take what is for `port` at the far end, harm it, and hand it to the far engine; and back."""
    with inside(ends.far.name):
        outside = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        within = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    stop = threading.Event()

    def carry() -> None:
        asker: tuple[str, int] | None = None
        held: list[tuple[socket.socket, bytes, tuple[str, int]]] = []
        while not stop.is_set():
            for ready in select.select([outside, within], [], [], 0.02)[0]:
                for _ in range(64):
                    try:
                        datagram, sender = ready.recvfrom(PART)
                    except BlockingIOError:
                        break
                    if ready is outside:
                        asker = sender
                    if asker is None:
                        continue
                    by, to = (within, (OUTER[4][1], PORT)) if ready is outside else (outside, asker)
                    for one in harm(datagram):
                        if harm.dice.random() < harm.late:
                            harm.done += 1
                            held.append((by, one, to))
                        else:
                            by.sendto(one, to)
                    # What is late comes a few datagrams later.
                    if len(held) > 3:
                        late, payload, where = held.pop(0)
                        late.sendto(payload, where)
            for late, payload, where in held:
                late.sendto(payload, where)
            held.clear()

    with outside, within:
        for sock in (outside, within):
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, harm.class_)
            sock.setsockopt(socket.SOL_SOCKET, 33, 4 << 20)  # SO_RCVBUFFORCE
        outside.bind((OUTER[4][1], port))
        thread = threading.Thread(target=carry)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
