"""The DNS client against a real server on loopback."""

import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from threading import Thread

import dns.flags
import dns.message
import dns.rdatatype
import dns.rrset
import pytest

from entrypoint.linux.http import SystemHttp
from entrypoint.linux.world import Bound

pytestmark = pytest.mark.anyio

HERE = Bound("lo")
type Answer = Callable[[dns.message.Message], list[bytes]]


def reply(query: dns.message.Message, *addresses: str) -> dns.message.Message:
    answer = dns.message.make_response(query)
    question = query.question[0]
    wanted = [a for a in addresses if (":" in a) == (question.rdtype == dns.rdatatype.AAAA)]
    if wanted:
        answer.answer.append(dns.rrset.from_text(question.name, 60, "IN", question.rdtype, *wanted))
    return answer


@contextmanager
def server(address: str, answer: Answer, over_tcp: Answer | None = None) -> Iterator[None]:
    """Answer on UDP, and where `over_tcp` is given on TCP too, until the block ends."""
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind((address, 53))
    tcp = socket.create_server((address, 53)) if over_tcp else None

    def serve_udp() -> None:
        while True:
            data, peer = udp.recvfrom(4096)
            if data == b"stop":
                return
            for wire in answer(dns.message.from_wire(data)):
                udp.sendto(wire, peer)

    def serve_tcp() -> None:
        assert tcp is not None and over_tcp is not None
        for _ in range(2):  # A and AAAA
            connection, _peer = tcp.accept()
            with connection:
                size = struct.unpack("!H", connection.recv(2, socket.MSG_WAITALL))[0]
                query = dns.message.from_wire(connection.recv(size, socket.MSG_WAITALL))
                for wire in over_tcp(query):
                    connection.sendall(struct.pack("!H", len(wire)) + wire)

    threads = [Thread(target=serve_udp)] + ([Thread(target=serve_tcp)] if tcp else [])
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stop:
            stop.sendto(b"stop", (address, 53))
        for thread in threads:
            thread.join(5)
        udp.close()
        if tcp:
            tcp.close()


async def test_both_families_ipv4_first() -> None:
    with server("127.0.0.53", lambda q: [reply(q, "2001:db8::1", "192.0.2.1").to_wire()]):
        found = await SystemHttp().lookup("name.test", [ip_address("127.0.0.53")], HERE)
    assert found == (ip_address("192.0.2.1"), ip_address("2001:db8::1"))


async def test_a_literal_is_not_asked_for() -> None:
    assert await SystemHttp().lookup("192.0.2.9", [], HERE) == (ip_address("192.0.2.9"),)


async def test_noise_is_ignored_until_the_real_answer() -> None:
    def noisy(query: dns.message.Message) -> list[bytes]:
        forged = reply(query, "203.0.113.66")
        forged.id = query.id ^ 1
        return [b"\x00", forged.to_wire(), reply(query, "192.0.2.1").to_wire()]

    with server("127.0.0.53", noisy):
        found = await SystemHttp().lookup("name.test", [ip_address("127.0.0.53")], HERE)
    assert found == (ip_address("192.0.2.1"),)


async def test_a_truncated_answer_is_asked_again_over_tcp() -> None:
    def truncated(query: dns.message.Message) -> list[bytes]:
        answer = reply(query)
        answer.flags |= dns.flags.TC
        return [answer.to_wire()]

    with server("127.0.0.53", truncated, over_tcp=lambda q: [reply(q, "192.0.2.7").to_wire()]):
        found = await SystemHttp().lookup("name.test", [ip_address("127.0.0.53")], HERE)
    assert found == (ip_address("192.0.2.7"),)


async def test_the_next_server_is_asked_when_one_is_silent_or_has_nothing() -> None:
    servers = [ip_address(a) for a in ("127.0.0.51", "127.0.0.52", "127.0.0.53")]
    with (
        server("127.0.0.52", lambda q: [reply(q).to_wire()]),
        server("127.0.0.53", lambda q: [reply(q, "192.0.2.1").to_wire()]),
    ):
        found = await SystemHttp().lookup("name.test", servers, HERE, limit=1)
    assert found == (ip_address("192.0.2.1"),)


async def test_no_answer_is_an_error() -> None:
    with pytest.raises(OSError, match=r"no DNS server has an address for name\.test"):
        await SystemHttp().lookup("name.test", [ip_address("127.0.0.51")], HERE, limit=0.2)
    with pytest.raises(ConnectionRefusedError):
        await SystemHttp().ask(ip_address("127.0.0.51"), "name.test", HERE, limit=0.2)


async def test_a_forged_record_of_another_class_is_no_address() -> None:
    """Parsed as a generic record it has no address; this once ended the supervisor."""

    def forged(query: dns.message.Message) -> list[bytes]:
        wire = bytearray(reply(query, "192.0.2.1").to_wire())
        if query.question[0].rdtype == dns.rdatatype.AAAA:
            return [bytes(wire)]
        at = wire.rindex(b"\x00\x01\x00\x01")  # type A, class IN of the answer
        wire[at + 2 : at + 4] = b"\x12\x34"
        return [bytes(wire)]

    with server("127.0.0.9", forged), pytest.raises(OSError, match="no DNS server"):
        await SystemHttp().lookup("example.com", [ip_address("127.0.0.9")], HERE, limit=1)
