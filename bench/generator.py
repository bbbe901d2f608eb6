"""The near end: one measurement of one way, as a program of its own that prints what it saw as JSON.

    python -m bench.generator '{"mode": "down", "socks": true, "streams": 8, "seconds": 3}'

`socks`: by SOCKS5 at 127.0.0.1:1080 (sslocal), else straight. It runs in the place of the lab where the way
begins, and nothing of the thing measured runs in it.
"""

import json
import os
import queue
import resource
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from bench.dial import associate, dial, exactly
from bench.ports import BLOCK, BULK, COUNT, ECHO, SEND, SINK
from bench.sink import COUNTED, memory_file, swallow

WARM = 0.5
"""Seconds at the start of a download that do not count: windows grow."""
WINDOW = 128
"""Datagrams on their way at once."""
LOST = 0.05
"""Seconds of silence after which what is missing of them counts as lost."""
AGAIN = 0.02
"""Seconds between two questions of one who cannot wait."""

type Report = dict[str, Any]


def abreast(count: int, job: Callable[[], Any]) -> list[Any]:
    """Run the job in so many threads; return what each returned. Raises what one raised."""
    results: list[Any] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(job())
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run) for _ in range(count)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    for error in errors:
        raise error
    return results


def down(*, socks: bool, streams: int, seconds: float) -> Report:
    """Download. `rate`: bytes a second after the warm-up; `total`: all bytes."""
    begun = time.monotonic() + WARM
    until = begun + seconds

    def stream() -> tuple[int, int]:
        buffer = bytearray(BLOCK)
        early = late = 0
        with dial(BULK, socks=socks) as sock:
            sock.sendall(SEND)
            while (now := time.monotonic()) < until:
                got = swallow(sock, buffer)
                if not got:
                    raise ConnectionError("the download ended")
                if now < begun:
                    early += got
                else:
                    late += got
        return early, late

    counts = abreast(streams, stream)
    late = sum(count[1] for count in counts)
    return {"rate": late / seconds, "total": sum(map(sum, counts))}


def up(*, socks: bool, streams: int, seconds: float) -> Report:
    """Upload. `rate`: bytes a second from the first to the last at the sink; `total`: all bytes."""
    until = time.monotonic() + seconds
    file = memory_file()

    def stream() -> tuple[int, float, float]:
        with dial(BULK, socks=socks) as sock:
            sock.sendall(COUNT)
            while time.monotonic() < until:
                os.sendfile(sock.fileno(), file, 0, BLOCK)
            sock.shutdown(socket.SHUT_WR)
            total, first, last = COUNTED.unpack(exactly(sock, COUNTED.size))
        return total, first, last

    counts = abreast(streams, stream)
    total = sum(count[0] for count in counts)
    took = max(count[2] for count in counts) - min(count[1] for count in counts)
    return {"rate": total / took, "total": total}


def connect(*, socks: bool, workers: int, seconds: float) -> Report:
    """Connect, send a byte, get it back, close, again and again. `rate`: of these a second."""
    until = time.monotonic() + seconds
    reading, writing = os.pipe()
    # Processes, not threads: one interpreter would be slower than what it measures.
    children = []
    for _ in range(workers):
        child = os.fork()
        if not child:
            os.write(writing, struct.pack("!Q", _connect_until(until, socks=socks)))
            os._exit(0)
        children.append(child)
    for child in children:
        if os.waitpid(child, 0)[1]:
            raise ConnectionError("a connection failed")
    counts = struct.unpack(f"!{workers}Q", os.read(reading, 8 * workers))
    return {"rate": sum(counts) / seconds}


def _connect_until(until: float, *, socks: bool) -> int:
    done = 0
    while time.monotonic() < until:
        ping(socks=socks).close()
        done += 1
    return done


def ping(*, socks: bool) -> socket.socket:
    """Return a connection that has brought a byte back."""
    sock = dial(ECHO, socks=socks)
    sock.sendall(b".")
    exactly(sock, 1)
    return sock


def hold(*, socks: bool, count: int, workers: int) -> Report:
    """Open so many connections, each of which has brought a byte back, and keep them."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    held = abreast(workers, lambda: [ping(socks=socks) for _ in range(count // workers)])
    HELD.extend(sock for some in held for sock in some)
    return {"held": len(HELD)}


HELD: list[socket.socket] = []


def latency(*, socks: bool, count: int) -> Report:
    """Send a byte and wait for it, on one connection. `seconds`: of each, sorted."""
    with ping(socks=socks) as sock:
        took = []
        for _ in range(count):
            sent = time.perf_counter()
            sock.sendall(b".")
            exactly(sock, 1)
            took.append(time.perf_counter() - sent)
    return {"seconds": sorted(took)}


def datagrams(*, socks: bool, size: int, seconds: float) -> Report:
    """Keep WINDOW datagrams of `size` bytes on their way. `rate`: back a second; `lost`: how many."""
    control, target, head = associate() if socks else (None, (SINK, ECHO), b"")
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.settimeout(LOST)
    udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    datagram = head + os.urandom(size)
    udp.connect(target)
    back = lost = 0
    on_their_way = 0
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        while on_their_way < WINDOW:
            udp.send(datagram)
            on_their_way += 1
        try:
            udp.recv(2048)
        except TimeoutError:
            lost, on_their_way = lost + on_their_way, 0
        else:
            back, on_their_way = back + 1, max(0, on_their_way - 1)
    udp.close()
    if control:
        control.close()
    return {"rate": back / seconds, "lost": lost}


def first(*, socks: bool) -> Report:
    """Ask for a byte again and again, overlapping. `at`: when the first came (CLOCK_MONOTONIC)."""
    arrived: queue.SimpleQueue[float] = queue.SimpleQueue()

    def ask() -> None:
        with suppress(OSError), ping(socks=socks):
            arrived.put(time.monotonic())

    print("asking", flush=True)
    while True:
        threading.Thread(target=ask, daemon=True).start()
        with suppress(queue.Empty):
            return {"at": arrived.get(timeout=AGAIN)}


MODES: dict[str, Callable[..., Report]] = {
    one.__name__: one for one in (down, up, connect, hold, latency, datagrams, first)
}


def main() -> None:
    """Do what the argument says, print the report, and end with standard input."""
    options = json.loads(sys.argv[1])
    mode = MODES[options.pop("mode")]
    try:
        print(json.dumps(mode(**options)), flush=True)
    except OSError as error:
        sys.exit(f"{mode.__name__}: {error}")
    sys.stdin.read()


if __name__ == "__main__":
    main()
