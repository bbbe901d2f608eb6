"""Runs where an example's own image would, since no registry is behind these tests: `… standin WHAT`.

    serve PORT                  answer everybody with the address he has here
    probe PORT                  the same, and send what would leak, all the time
    ask SECONDS [SOCKS[:PORT]]  print what the origin says of us, by each name it has
    who HOST PORT SOURCE        ask one who serves, from this address

`probe` keeps its counts in /tmp/probes.json.
"""

import http.client
import json
import os
import socket
import struct
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path

from examples.demo.client import TARGETS, Here
from tests.cloudflare.config import ECHO_PORT
from tests.lab.client import Client, Reached, Target, origin_url

PROBES = Path("/tmp/probes.json")
UNANSWERED = {socket.AF_INET: "9.9.9.9", socket.AF_INET6: "2620:fe::fe"}
"""Public addresses that do not answer."""
EVERY = 0.02
SILENCE = 0.5
ORIGIN = "1.1.1.1"
RESOLVERS = {"a name": "127.0.0.11", "a name, of a resolver outside": ORIGIN}


class Who(BaseHTTPRequestHandler):
    """Tells a client its address."""

    def do_GET(self) -> None:  # the base class's word
        """Answer."""
        body = self.client_address[0].removeprefix("::ffff:").encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class Server(ThreadingHTTPServer):
    """For both families, where there are both."""

    address_family = socket.AF_INET6 if Path("/proc/net/if_inet6").exists() else socket.AF_INET


def main() -> None:
    """Do what the arguments say."""
    match sys.argv[1:]:
        case ["serve", port]:
            serve(int(port))
        case ["probe", port]:
            threading.Thread(target=probe, daemon=True).start()
            serve(int(port))
        case ["who", address, port, source]:
            print(fetch(address, int(port), "/", 5.0, source))
        case ["ask", timeout, *proxy]:
            told = {name: ask(target, float(timeout), proxy) for name, target in TARGETS.items()}
            print(json.dumps(told))


def serve(port: int) -> None:
    """Serve until the end."""
    Server(("", port), Who).serve_forever()


def ask(target: Target, timeout: float, proxy: list[str]) -> list[str]:
    """Return the address and the word `warp=` that the origin sees; what went wrong, else."""
    try:
        if proxy:
            host, _, port = proxy[0].partition(":")
            client = Client(Here(), socks=(host, int(port or 1080)))  # type: ignore[arg-type] # does all it asks
            reached = client.trace(target, timeout)
        else:
            text = fetch(origin_url(target), 80, "/cdn-cgi/trace", timeout)
            fields = dict(line.split("=", 1) for line in text.splitlines())
            reached = Reached(fields["ip"], fields["warp"])
    except OSError as error:
        return [str(error) or type(error).__name__, "error"]
    return [reached.ip, reached.warp]


def fetch(host: str, port: int, path: str, timeout: float, source: str = "") -> str:
    """Return a page, asked for from this address. Raises OSError."""
    at = (source, 0) if source else None
    with closing(http.client.HTTPConnection(host, port, timeout, at)) as connection:
        connection.request("GET", path)
        return connection.getresponse().read().decode()


def probe() -> None:
    """Send one of each kind every EVERY seconds, without waiting for an answer."""
    tried, sent, last, pulse = Counter[str](), Counter[str](), list[socket.socket](), Pulse()
    ticker = threading.Event()
    for number in count():
        for one in last:
            one.close()
        last = []
        for name, send in kinds(number):
            tried[name] += 1
            with suppress(OSError):
                last.append(send())
                sent[name] += 1
        pulse.beat()
        if not number % 25:
            fresh = PROBES.with_suffix(".new")
            fresh.write_text(
                json.dumps(
                    {"tried": tried, "sent": sent, "silences": pulse.silences, "answers": pulse.answers}
                )
            )
            fresh.replace(PROBES)
        ticker.wait(EVERY)


class Pulse:
    """Asks the origin's echo all the time; `silences` are the longer times without an answer, in order."""

    def __init__(self) -> None:
        self.silences, self.answers = list[float](), 0
        self._heard = time.monotonic()
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setblocking(False)

    def beat(self) -> None:
        """Send, and see what has come."""
        # The socket is read on after an error: a refusal must not end the listening.
        with suppress(OSError):
            self._socket.sendto(b"beat", (ORIGIN, ECHO_PORT))
        with suppress(OSError):
            while self._socket.recv(100):
                now = time.monotonic()
                if now - self._heard >= SILENCE:
                    self.silences.append(now - self._heard)
                self._heard, self.answers = now, self.answers + 1


def kinds(number: int) -> Iterator[tuple[str, Callable[[], socket.socket]]]:
    """Yield every kind of probe with what sends it and returns the socket."""
    for version, family in ((4, socket.AF_INET), (6, socket.AF_INET6)):
        where = UNANSWERED[family]
        yield f"UDP {version}", partial(datagram, family, (where, 9), b"probe")
        yield f"TCP {version}", partial(connection, family, (where, 9))
        yield f"ICMP {version}", partial(echo, family, where)
    for name, server in RESOLVERS.items():
        yield name, partial(datagram, socket.AF_INET, (server, 53), query(number))
    from_uplink = partial(
        datagram, socket.AF_INET, (UNANSWERED[socket.AF_INET], 9), b"probe", os.environ["UPLINK"]
    )
    yield "UDP from the uplink's address", from_uplink


def datagram(
    family: int, where: tuple[str, int], payload: bytes, source: str = "", kind: int = 0
) -> socket.socket:
    """Send one datagram."""
    sock = socket.socket(family, socket.SOCK_DGRAM, kind)
    try:
        sock.setblocking(False)
        if source:
            sock.bind((source, 0))
        sock.sendto(payload, where)
    except BaseException:
        sock.close()
        raise
    return sock


def echo(family: int, where: str) -> socket.socket:
    """Send an echo request, as ping without a capability does."""
    v4 = family == socket.AF_INET
    head = struct.pack("!BBHHH", 8 if v4 else 128, 0, 0, 0, 1)
    return datagram(family, (where, 0), head, kind=1 if v4 else 58)


def connection(family: int, where: tuple[str, int]) -> socket.socket:
    """Send a SYN."""
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        with suppress(BlockingIOError):
            sock.connect(where)
    except BaseException:
        sock.close()
        raise
    return sock


def query(number: int) -> bytes:
    """Return a DNS query for the A record of a name that is in no cache."""
    labels = (f"n{number}", "probe", "test")
    name = b"".join(bytes([len(one)]) + one.encode() for one in labels)
    return struct.pack("!HHHHHH", number & 0xFFFF, 0x0100, 1, 0, 0, 0) + name + b"\0\0\1\0\1"


if __name__ == "__main__":
    main()
