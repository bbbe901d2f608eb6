"""Connections from the near end to the sink, straight or by SOCKS5 (RFC 1928) through sslocal."""

import socket
import struct

from bench.ports import ECHO, PATIENCE, SINK

SOCKS = ("127.0.0.1", 1080)


def address(port: int) -> bytes:
    """Return the sink's SOCKS5 address."""
    return b"\x01" + socket.inet_aton(SINK) + struct.pack("!H", port)


def exactly(sock: socket.socket, size: int) -> bytes:
    """Receive so many bytes. Raises ConnectionError when fewer come."""
    data = sock.recv(size, socket.MSG_WAITALL)
    if len(data) != size:
        raise ConnectionError(f"{len(data)} of {size} bytes")
    return data


def dial(port: int, *, socks: bool) -> socket.socket:
    """Connect to the sink. Raises OSError."""
    sock = _patient()
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        sock.connect(SOCKS if socks else (SINK, port))
        if socks:
            # Greeting and request at once: the server's answers do not depend on each other.
            sock.sendall(b"\x05\x01\x00\x05\x01\x00" + address(port))
            if exactly(sock, 12)[:4] != b"\x05\x00\x05\x00":
                raise ConnectionError("refused by the proxy")
    except BaseException:
        sock.close()
        raise
    return sock


def _patient() -> socket.socket:
    """Return a socket whose waits are limited by the kernel: Python's own timeouts make it non-blocking."""
    sock = socket.socket()
    limit = struct.pack("ll", int(PATIENCE), 0)
    for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
        sock.setsockopt(socket.SOL_SOCKET, option, limit)
    return sock


def associate() -> tuple[socket.socket, tuple[str, int], bytes]:
    """Return the control connection, the relay's address and the head of each datagram to the echo port."""
    control = _patient()
    control.connect(SOCKS)
    control.sendall(b"\x05\x01\x00\x05\x03\x00\x01" + bytes(6))
    answer = exactly(control, 12)
    relay = socket.inet_ntoa(answer[6:10]), int.from_bytes(answer[10:12])
    return control, relay, b"\x00\x00\x00" + address(ECHO)
