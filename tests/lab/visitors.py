"""Who comes to a host from outside, and what it says to them."""

import json
import socket
import threading
import time
from contextlib import suppress
from typing import cast

from tests.lab.client import Reached
from tests.lab.host_topology import SSH
from tests.lab.topology import Lab, Place


def greeted(lab: Lab, address: object, port: int, place: str = "C", within: float = 3.0) -> str | None:
    """Connect and return the client address the server saw, None without an answer."""
    family = socket.AF_INET6 if ":" in str(address) else socket.AF_INET
    with lab.inside(cast("Place", place)):
        sock = socket.socket(family, socket.SOCK_STREAM)
    with sock:
        sock.settimeout(within)
        try:
            sock.connect((str(address), port))
            return str(json.loads(sock.makefile("rb").readline())).removeprefix("::ffff:")
        except (OSError, ValueError):
            return None


def echoes(lab: Lab, address: object, port: int, within: float = 1.0) -> bool:
    """Send a datagram from C on a connected socket: only an answer from the asked address counts."""
    family = socket.AF_INET6 if ":" in str(address) else socket.AF_INET
    with lab.inside("C"):
        sock = socket.socket(family, socket.SOCK_DGRAM)
    with sock:
        sock.settimeout(within)
        sock.connect((str(address), port))
        sock.send(b"hello")
        with suppress(OSError):
            return sock.recv(100) == b"hello"
    return False


def traced(lab: Lab, target: object, place: str = "H", mark: int = 0) -> Reached | None:
    """Ask the origin at `target` who we are, from a place, on a socket with this mark."""
    family = socket.AF_INET6 if ":" in str(target) else socket.AF_INET
    with lab.inside(cast("Place", place)):
        sock = socket.socket(family, socket.SOCK_STREAM)
    with sock:
        sock.settimeout(3)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
            sock.connect((str(target), 80))
            sock.sendall(b"GET /cdn-cgi/trace HTTP/1.0\r\n\r\n")
            text = sock.makefile("rb").read().partition(b"\r\n\r\n")[2].decode()
        except OSError:
            return None
    fields = dict(line.split("=", 1) for line in text.splitlines())
    return Reached(fields["ip"], fields["warp"])


class Session:
    """An SSH-like session from C: the server says what time it is, and keeps on saying it.

    What counts is how long its words were on their way: a busy machine makes it speak late.
    """

    def __init__(self, lab: Lab, address: object) -> None:
        family = socket.AF_INET6 if ":" in str(address) else socket.AF_INET
        with lab.inside("C"):
            self._socket = socket.socket(family, socket.SOCK_STREAM)
        self._socket.settimeout(10)
        self._socket.connect((str(address), SSH))
        self._lines = self._socket.makefile("rb")
        self._lines.readline()
        self._last = time.monotonic()
        self._longest = 0.0
        self.words = 0
        self.broken = False
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        while True:
            try:
                if not (word := self._lines.readline()):
                    raise ConnectionError
            except OSError:
                self.broken = True
                return
            self._last = time.monotonic()
            self.words += 1
            self._longest = max(self._longest, self._last - float(word))

    @property
    def longest(self) -> float:
        """How long the slowest word so far was on its way, in seconds, or the silence that lasts."""
        return max(self._longest, time.monotonic() - self._last)

    def close(self) -> None:
        """End it."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(5)
        self._lines.close()
        self._socket.close()


class Knocker:
    """Twenty new connections a second from C, in turn to each of the addresses; counts failures."""

    def __init__(self, lab: Lab, addresses: tuple[object, ...]) -> None:
        self._lab, self._addresses = lab, addresses
        self.tried, self.failed = 0, list[str]()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._knock, daemon=True)

    def _knock(self) -> None:
        while not self._stopping.wait(0.05):
            address = self._addresses[self.tried % len(self._addresses)]
            if greeted(self._lab, address, SSH) is None:
                self.failed.append(str(address))
            self.tried += 1

    def __enter__(self) -> "Knocker":
        """Start."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop."""
        self._stopping.set()
        self._thread.join()
