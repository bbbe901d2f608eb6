"""Sockets that carry their mark, or are bound to their device, *before* they connect."""

import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import IPv4Address, IPv6Address

import anyio

from entrypoint.ports import Bound, Marked

type Address = IPv4Address | IPv6Address


def open_socket(way: Marked | Bound, address: Address, kind: socket.SocketKind) -> socket.socket:
    """Return a non-blocking socket for `address` that already knows its way."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    sock = socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
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


async def connect(sock: socket.socket, address: Address, port: int) -> None:
    """Connect a socket made by `open_socket`; raise OSError."""
    try:
        sock.connect((str(address), port))
    except BlockingIOError:
        await anyio.wait_writable(sock)
        failure = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if failure:
            raise OSError(failure, os.strerror(failure)) from None
