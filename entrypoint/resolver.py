"""A small DNS client on sockets that know their way; dnspython makes and reads the messages."""

import socket
import struct
from collections.abc import Sequence
from ipaddress import ip_address

import anyio
import dns.exception
import dns.flags
import dns.message
import dns.rdatatype
from anyio.abc import SocketStream

from entrypoint.ports import Bound, Marked
from entrypoint.sockets import Address, connected

PORT = 53
LARGEST = 1232
"""Bytes of a UDP answer that cross every path unfragmented (DNS flag day 2020); also what fits MTU 1280."""


async def lookup(
    name: str, servers: Sequence[Address], way: Marked | Bound, limit: float
) -> tuple[Address, ...]:
    """Return the addresses of `name`, IPv4 first; the first server that knows one decides.

    An IP literal is returned as it is. `limit` is in seconds, per server. Raises OSError when no
    server has an address.
    """
    try:
        return (ip_address(name),)
    except ValueError:
        pass
    found: dict[dns.rdatatype.RdataType, list[Address]] = {}

    async def one(server: Address, kind: dns.rdatatype.RdataType) -> None:
        query = dns.message.make_query(name, kind, use_edns=True, payload=LARGEST)
        try:
            found[kind] = _addresses(await _exchange(query, server, way, limit), kind)
        except OSError:
            found[kind] = []

    for server in servers:
        async with anyio.create_task_group() as tasks:
            for kind in (dns.rdatatype.A, dns.rdatatype.AAAA):
                tasks.start_soon(one, server, kind)
        addresses = [*found[dns.rdatatype.A], *found[dns.rdatatype.AAAA]]
        if addresses:
            return tuple(addresses)
    raise OSError(f"no DNS server has an address for {name}")


async def ask(server: Address, name: str, way: Marked | Bound, limit: float) -> None:
    """Send one query over UDP; return on any answer to it. Raises OSError without one in `limit` seconds."""
    await _exchange(dns.message.make_query(name, dns.rdatatype.A), server, way, limit)


def _addresses(answer: dns.message.Message, kind: dns.rdatatype.RdataType) -> list[Address]:
    return [ip_address(item.address) for rrset in answer.answer if rrset.rdtype == kind for item in rrset]


async def _exchange(
    query: dns.message.QueryMessage, server: Address, way: Marked | Bound, limit: float
) -> dns.message.Message:
    """Exchange one message, by UDP and when truncated by TCP (RFC 1035, 7766). Raises OSError."""
    with anyio.fail_after(limit):
        async with connected(way, server, PORT, socket.SOCK_DGRAM) as sock:
            sock.send(query.to_wire())
            while True:
                await anyio.wait_readable(sock)
                answer = _parsed(query, sock.recv(65535))
                if answer:
                    break
        if not answer.flags & dns.flags.TC:
            return answer
        async with connected(way, server, PORT, socket.SOCK_STREAM) as sock:
            stream = await SocketStream.from_socket(sock.dup())
            async with stream:
                wire = query.to_wire()
                await stream.send(struct.pack("!H", len(wire)) + wire)
                data = b""
                while len(data) < 2 or len(data) < 2 + struct.unpack("!H", data[:2])[0]:
                    try:
                        data += await stream.receive()
                    except anyio.EndOfStream as error:
                        raise OSError(f"{server} ended its answer early") from error
        answer = _parsed(query, data[2:])
        if answer is None:
            raise OSError(f"{server} answered something else over TCP")
        return answer


def _parsed(query: dns.message.QueryMessage, wire: bytes) -> dns.message.Message | None:
    """Return the message when it answers `query`, None when it is noise (wrong id, forged, broken)."""
    try:
        answer = dns.message.from_wire(wire, ignore_trailing=True, raise_on_truncation=False)
    except dns.exception.DNSException:
        return None
    return answer if query.is_response(answer) else None
