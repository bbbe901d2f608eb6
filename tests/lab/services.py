"""Servers in the lab's places: one that speaks first, as SSH does, and an echo of datagrams."""

import json
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Literal, cast

from tests.lab.topology import Lab, Place
from tests.pace import longer

BEAT = longer(0.02)


@dataclass(frozen=True, slots=True)
class Service:
    """A server in `place`; without an `address` it is bound to all of them, of both families.

    `tcp` says whom it sees, then what time it is, without end; `udp` sends back what it gets.
    """

    place: str
    transport: Literal["tcp", "udp"]
    port: int
    address: str = "::"


@contextmanager
def served(lab: Lab, services: Sequence[Service]) -> Iterator[None]:
    """Run these servers while inside."""
    sockets = []
    try:
        for one in services:
            with lab.inside(cast("Place", one.place)):
                sock = _listener(one) if one.transport == "tcp" else _datagrams(one)
            sockets.append(sock)
            serve = _speak_first if one.transport == "tcp" else _echo
            threading.Thread(target=serve, args=(sock,), daemon=True).start()
        yield
    finally:
        for sock in sockets:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()


def _family(service: Service) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in service.address else socket.AF_INET


def _listener(service: Service) -> socket.socket:
    wildcard = service.address == "::"
    where = (service.address, service.port)
    return socket.create_server(where, family=_family(service), dualstack_ipv6=wildcard, backlog=100)


def _datagrams(service: Service) -> socket.socket:
    sock = socket.socket(_family(service), socket.SOCK_DGRAM)
    if service.address == "::":
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    sock.bind((service.address, service.port))
    return sock


def _speak_first(listener: socket.socket) -> None:
    with suppress(OSError):
        while True:
            connection, peer = listener.accept()
            threading.Thread(target=_beat, args=(connection, peer), daemon=True).start()


def _beat(connection: socket.socket, peer: tuple[str, int]) -> None:
    pace = threading.Event()
    with suppress(OSError), connection:
        connection.sendall(json.dumps(peer[0]).encode() + b"\n")
        while not pace.wait(BEAT):
            connection.sendall(b"%.6f\n" % time.monotonic())


def _echo(sock: socket.socket) -> None:
    with suppress(OSError):
        while (received := sock.recvfrom(2048))[1]:
            with suppress(PermissionError):
                sock.sendto(*received)
