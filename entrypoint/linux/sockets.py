"""Sockets that are marked, or bound to a device, *before* they connect."""

import errno
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from ipaddress import IPv4Address, IPv6Address

import anyio

from entrypoint.linux.world import Bound, Marked

type Address = IPv4Address | IPv6Address


# The mark and the device are set before connecting: the route, and so the source address, is chosen then.
def open_socket(way: Marked | Bound, address: Address, kind: socket.SocketKind) -> socket.socket:
    """Return a non-blocking socket for `address`, marked or bound to its device."""
    sock = _unblocking(address, kind)
    try:
        match way:
            case Marked(mark):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
            case Bound(device):
                # Works without a capability since Linux 5.7, which is why older kernels are refused.
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
    except BaseException:
        sock.close()
        raise
    return sock


def _unblocking(address: Address, kind: socket.SocketKind) -> socket.socket:
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    return socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)


@asynccontextmanager
async def connected(
    way: Marked | Bound, address: Address, port: int, kind: socket.SocketKind
) -> AsyncIterator[socket.socket]:
    """Connect a socket; close it on leaving."""
    sock = open_socket(way, address, kind)
    try:
        await connect(sock, address, port)
        yield sock
    finally:
        sock.close()


async def await_reaction(address: Address, port: int) -> None:
    """Connect to our own server, close without sending, and wait for a reaction; raise OSError."""
    with _unblocking(address, socket.SOCK_STREAM) as sock:
        # An address that is no longer ours cannot be bound, so nothing leaves this machine.
        sock.bind((str(address), 0))
        await connect(sock, address, port)
        with suppress(OSError):  # the server may have closed first
            sock.shutdown(socket.SHUT_WR)
        await anyio.wait_readable(sock)


async def connect(sock: socket.socket, address: Address, port: int) -> None:
    """Connect a non-blocking socket; raise OSError."""
    try:
        sock.connect((str(address), port))
    except BlockingIOError:
        await anyio.wait_writable(sock)
        failure = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if failure:
            raise OSError(failure, os.strerror(failure)) from None


@asynccontextmanager
async def watch_groups(
    protocol: int, groups: Iterable[int], concerns_us: Callable[[bytes], bool]
) -> AsyncIterator[AsyncIterator[None]]:
    """Subscribe to netlink multicast groups; the iterator yields once for each burst of messages.

    Messages of which `concerns_us` says no are ignored: others change routes and rules all day long.
    Changes while the consumer is busy count as one burst. The iterator does not say what changed: list again.
    """
    kind = socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
    with socket.socket(socket.AF_NETLINK, kind, protocol) as sock:
        # Subscribed before the first listing, so no change falls between the two.
        sock.bind((0, sum(1 << (group - 1) for group in groups)))
        yield _bursts(sock, concerns_us)


async def _bursts(sock: socket.socket, concerns_us: Callable[[bytes], bool]) -> AsyncIterator[None]:
    while True:
        await anyio.wait_readable(sock)
        concerned = False
        while True:
            try:
                # Read all the same once it is clear: what is left would be another burst.
                concerned |= concerns_us(sock.recv(1 << 16))
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno != errno.ENOBUFS:  # more messages than the buffer holds are a change too
                    raise
                concerned = True
        if concerned:
            yield
