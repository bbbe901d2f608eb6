"""Being told by the kernel that something changed."""

import errno
import socket
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import anyio


@asynccontextmanager
async def bursts(protocol: int, groups: Iterable[int]) -> AsyncIterator[AsyncIterator[None]]:
    """Subscribe to netlink multicast groups; the iterator yields once for each burst of messages.

    What happens while the consumer is busy is one burst. What it was is not said: look.
    """
    kind = socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
    with socket.socket(socket.AF_NETLINK, kind, protocol) as sock:
        sock.bind((0, sum(1 << (group - 1) for group in groups)))
        yield _bursts(sock)


async def _bursts(sock: socket.socket) -> AsyncIterator[None]:
    while True:
        await anyio.wait_readable(sock)
        while True:
            try:
                sock.recv(1 << 16)
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno != errno.ENOBUFS:  # more than the buffer holds is a change too
                    raise
        yield
