"""Connections from H to the origin that are open before we come, and never stop sending (L-12)."""

import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass

from tests.cloudflare.config import BULK_PORT, ECHO_PORT
from tests.lab.scene import TRACE4, TRACE6
from tests.lab.senders import MARKED, Kind, owned
from tests.lab.topology import Lab
from tests.lab.wire import Wire

EVERY = 0.005
UPLOAD = b"POST /sink HTTP/1.1\r\nHost: origin\r\nContent-Length: 1000000000\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Flow:
    """One connection; its packets carry its name."""

    name: str
    socket: socket.socket

    @property
    def mark(self) -> bytes:
        """What tells its packets."""
        return Kind(self.name).mark


class Flows:
    """All of them, sending."""

    def __init__(self, some: Sequence[Flow]) -> None:
        self.all = tuple(some)
        self.tried = 0
        self.stopping = threading.Event()

    def seen(self, wire: Wire) -> set[str]:
        """Return the names of those that the wire saw."""
        found = (MARKED.search(one.payload) for one in wire.leaks())
        return {one[1].decode() for one in found if one}

    def send(self) -> None:
        """Send on each of them, until stopped."""
        while not self.stopping.wait(EVERY):
            for one in self.all:
                # A buffer that is full is sent again and again by the kernel.
                with suppress(OSError):
                    one.socket.send(one.mark)
                self.tried += 1


@contextmanager
def flows(lab: Lab, uids: Sequence[int]) -> Iterator[Flows]:
    """Open TCP and UDP connections of these users over IPv4 and IPv6, and send on them while inside."""
    with ExitStack() as stack:
        made = []
        for uid in uids:
            for target in (TRACE4, TRACE6):
                family = socket.AF_INET if target.version == 4 else socket.AF_INET6
                for kind, port in (socket.SOCK_STREAM, BULK_PORT), (socket.SOCK_DGRAM, ECHO_PORT):
                    with lab.inside("H"), owned(uid):
                        sock = stack.enter_context(socket.socket(family, kind))
                    sock.settimeout(5)
                    sock.connect((str(target), port))
                    if kind == socket.SOCK_STREAM:
                        sock.sendall(UPLOAD)
                    sock.setblocking(False)
                    made.append(Flow(f"{uid} v{target.version} {kind.name}", sock))
        everything = Flows(made)
        thread = threading.Thread(target=everything.send, daemon=True)
        thread.start()
        stack.callback(thread.join)
        stack.callback(everything.stopping.set)
        yield everything
