"""Sockets that carry their mark, or are bound to their device, *before* they connect."""

import errno
import os
import socket
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from ipaddress import IPv4Address, IPv6Address

import anyio

from entrypoint.linux.world import Bound, Marked

type Address = IPv4Address | IPv6Address


def open_socket(way: Marked | Bound, address: Address, kind: socket.SocketKind) -> socket.socket:
    """Return a non-blocking socket for `address` that already knows its way."""
    sock = _unblocking(address, kind)
    try:
        match way:
            case Marked(mark):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
            case Bound(device):
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
    """Connect a socket; it is closed on leaving."""
    sock = open_socket(way, address, kind)
    try:
        await connect(sock, address, port)
        yield sock
    finally:
        sock.close()


async def await_reaction(address: Address, port: int) -> None:
    """Connect to a listener of ours, end without a word, and wait for what it does; raise OSError."""
    with _unblocking(address, socket.SOCK_STREAM) as sock:
        # An address that is ours no more cannot be bound: nothing leaves this machine.
        sock.bind((str(address), 0))
        await connect(sock, address, port)
        with suppress(OSError):  # it may have been quicker
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
async def watch_groups(protocol: int, groups: Iterable[int]) -> AsyncIterator[AsyncIterator[None]]:
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
