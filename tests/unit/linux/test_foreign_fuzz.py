"""Broken DNS answers, trace pages, engine's answers, netlink messages, names: an answer or an OSError.

FUZZ says how many of each (a tenth where each is a connection), FUZZ_SEED which ones.
"""

import os
import random
import socket
import struct
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path
from threading import Thread

import anyio
import dns.message
import dns.rdatatype
import dns.rrset
import pytest

from entrypoint.health.probe import Trace, fetch_trace
from entrypoint.linux.deciding_routes import all_dull, concerns_us, worth_a_look
from entrypoint.linux.http import SystemHttp
from entrypoint.linux.netlink_messages import learned_ends, next_hops
from entrypoint.linux.proc import read_traffic, read_wildcards
from entrypoint.linux.raw_netlink import attributes
from entrypoint.linux.world import Bound
from entrypoint.wireguard.userspace import check_uapi, parse_uapi
from tests.conftest import Record
from tests.fakes.accidents import mutated

MANY = int(os.environ.get("FUZZ", "10000"))
SEED = int(os.environ.get("FUZZ_SEED", "5"))
SERVER = ip_address("127.0.0.77")
HERE = Bound("lo")
PATIENCE = 0.2
WHOLE = ("192.0.2.1", "2001:db8::1")


def chances(count: int) -> Iterator[random.Random]:
    """Yield a source of chance for each case."""
    for number in range(count):
        yield random.Random(f"{SEED} {number}")


def whole(query: dns.message.Message) -> dns.message.Message:
    answer, question = dns.message.make_response(query), query.question[0]
    address = WHOLE[question.rdtype != dns.rdatatype.A]
    answer.answer.append(dns.rrset.from_text(question.name, 60, "IN", question.rdtype, address))
    return answer


def answer_to(query: dns.message.Message, chance: random.Random) -> bytes:
    """The same with more around it: an alias, other kinds and classes."""
    name, answer = query.question[0].name, whole(query)
    records = [("IN", "CNAME", "alias.test."), ("IN", "TXT", "some text"), ("CH", "TXT", "else")]
    records.append(("IN", "SVCB", "1 alias.test. alpn=h2"))
    for where, kind, text in chance.sample(records, chance.randrange(3)):
        answer.answer.insert(0, dns.rrset.from_text(name, 60, where, kind, text))
    return answer.to_wire()


@contextmanager
def serving(serve: Callable[[], None], *sockets: socket.socket) -> Iterator[None]:
    thread = Thread(target=serve, daemon=True)
    thread.start()
    yield
    for sock in sockets:
        sock.shutdown(socket.SHUT_RDWR) if sock.type == socket.SOCK_STREAM else sock.sendto(
            b"", sock.getsockname()
        )
    thread.join(5)
    for sock in sockets:
        sock.close()
    assert not thread.is_alive()


@pytest.mark.timeout(600)
def test_broken_dns_answers(record: Record) -> None:
    """The answer to each query is broken; a whole one follows, for what was taken for noise."""
    outcomes: Counter[str] = Counter()
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind((str(SERVER), 53))
    cases = iter(chances(1 << 40))

    def serve() -> None:
        while True:
            data, peer = udp.recvfrom(512)
            if not data:
                return
            query, chance = dns.message.from_wire(data), next(cases)
            wire = answer_to(query, chance)
            # With a broken head or question nearly all are noise.
            kept = chance.choice((0, len(data), len(data)))
            udp.sendto(wire[:kept] + mutated(wire[kept:], chance), peer)
            udp.sendto(whole(query).to_wire(), peer)

    async def run() -> None:
        for _ in chances(max(300, MANY // 10)):
            try:
                found = await SystemHttp().lookup("name.test", [SERVER], HERE, limit=PATIENCE)
                outcomes["broken taken" if len(found) != len(WHOLE) else "whole"] += 1
                assert all(one.version in {4, 6} for one in found)
            except OSError:
                outcomes["refused"] += 1

    with serving(serve, udp):
        anyio.run(run)
    assert outcomes["whole"] > MANY / 100
    assert outcomes["broken taken"], "some are broken in a way that cannot be seen"
    record("broken DNS answers", f"{dict(outcomes)}, nothing but OSError")


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nConnection: close\r\nContent-Length: 70\r\n\r\n"
BODY = b"fl=000f000\nip=104.28.0.1\nts=1767225600.123\ncolo=FRA\nloc=DE\nwarp=on\n"
PAGE = HEAD + BODY.ljust(70)


@pytest.mark.timeout(600)
def test_broken_trace_pages(record: Record) -> None:
    outcomes: Counter[str] = Counter()
    server = socket.create_server((str(SERVER), 80))
    cases = chances(1 << 40)

    def serve() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            chance = next(cases)
            with connection:
                connection.recv(4096)
                connection.sendall(mutated(PAGE, chance))

    async def run() -> None:
        for _ in chances(MANY // 10):
            try:
                url = f"http://{SERVER}/cdn-cgi/trace"
                trace = await fetch_trace(SystemHttp(), url, HERE, None, (), limit=PATIENCE)
                outcomes["a trace"] += 1
                assert isinstance(trace, Trace)
            except OSError:
                outcomes["refused"] += 1

    with serving(serve, server):
        anyio.run(run)
    assert min(outcomes["a trace"], outcomes["refused"]) > MANY / 1000
    record("broken trace pages", f"{dict(outcomes)}, nothing but OSError")


UAPI = (
    b"private_key=00\nlisten_port=51820\nfwmark=4096\npublic_key=11\nendpoint=162.159.192.1:2408\n"
    b"last_handshake_time_sec=1767225600\nlast_handshake_time_nsec=123\nrx_bytes=92\ntx_bytes=148\nerrno=0\n\n"
)


def test_broken_answers_of_the_engine(record: Record) -> None:
    outcomes: Counter[str] = Counter()
    for chance in chances(MANY):
        answer = mutated(UAPI, chance).decode(errors="replace")
        for read in parse_uapi, check_uapi:
            try:
                read(answer)
                outcomes["read"] += 1
            except OSError as error:
                outcomes["refused"] += 1
                assert str(error)
    assert min(outcomes.values()) > MANY / 100
    record("broken answers of the engine", f"{dict(outcomes)}, nothing but OSError")


def message(kind: int, body: bytes) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, 0, 0, 0) + body


def attribute(kind: int, data: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(data), kind) + data.ljust((len(data) + 3) & ~3, b"\0")


ROUTE = bytes((2, 24, 0, 0, 254, 4, 0, 1)) + bytes(4) + attribute(15, bytes(4)) + attribute(1, bytes(4))
NEXT_HOP = bytes(8) + attribute(1, bytes((7, 0, 0, 0))) + attribute(5, bytes((2, 0, 0, 0)))
GROUP = bytes(8) + attribute(1, bytes((8, 0, 0, 0))) + attribute(2, bytes((7, 0, 0, 0, 0, 0, 0, 0)))
NEIGHBOUR = bytes(12) + attribute(1, bytes((9, 9, 9, 9)))


def test_broken_netlink_messages_end_and_raise_nothing_but_what_is_caught(record: Record) -> None:
    """Whoever has NET_ADMIN may send us messages that no kernel would."""
    concerned: Counter[bool] = Counter()
    for chance in chances(MANY):
        burst = mutated(message(24, ROUTE) + message(16, bytes(16)) + message(25, ROUTE), chance)
        concerned[concerns_us(burst)] += 1
        assert sum(len(content) for _, content in attributes(burst)) <= len(burst)
    assert min(concerned.values()) > MANY / 100
    record("broken netlink messages", f"{concerned.total()}, none raises")


DULL = bytes((2, 24, 0, 0, 254, 186, 0, 1)) + ROUTE[8:]
LISTED = struct.pack("=IHHII", 16 + len(DULL), 24, 2, 1, 7) + DULL


def test_what_is_skipped_in_one_go_holds_nothing_that_decides(record: Record) -> None:
    assert all_dull(LISTED * 1000)
    outcomes: Counter[bool] = Counter()
    for chance in chances(MANY):
        one = bytearray(LISTED * chance.randrange(1, 9))
        for _ in range(chance.randrange(4)):
            one[chance.randrange(len(one))] = chance.choice((0, 1, 2, 3, 16, 32, 52, 99, 254, 255))
        burst = bytes(one)
        outcomes[all_dull(burst)] += 1
        at = 0
        while all_dull(burst) and at < len(burst):
            length, kind, flags = struct.unpack_from("=IHH", burst, at)
            assert (kind, flags & 0x10) == (24, 0), "an end, an error, an interruption are never skipped"
            assert not worth_a_look(burst, at)
            at += (length + 3) & ~3
    assert min(outcomes.values()) > MANY / 100
    record("buffers of routes skipped in one go", f"{outcomes[True]} of {MANY}, none held what decides")


def test_whole_netlink_messages_still_count() -> None:
    """A fuzz of what is never read would prove nothing."""
    assert not concerns_us(message(24, ROUTE))
    assert concerns_us(message(24, bytes((2, 0)) + ROUTE[2:]))
    assert worth_a_look(message(24, bytes((2, 0)) + ROUTE[2:]), 0)
    assert next_hops([NEXT_HOP, GROUP]) == {7: ((2, None),), 8: ((2, None),)}
    assert learned_ends([NEIGHBOUR]) == {0: ["9.9.9.9"]}


def test_names_of_any_bytes(tmp_path: Path, record: Record) -> None:
    """Interfaces and programs are named by whoever makes them."""
    forbidden = {0, ord("/"), *b" \t\n\v\f\r:"}
    letters = [one for one in range(1, 256) if one not in forbidden]
    head = b"Inter-|   Receive  |  Transmit\n face |bytes packets\n"
    counters = tmp_path / "dev"
    net = tmp_path / "thread-self/net"
    net.mkdir(parents=True)
    (net / "udp").write_text(
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
        "  0: 00000000:1389 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4711\n"
    )
    for chance in chances(MANY // 10):
        name = bytes(chance.choices(letters, k=chance.randrange(1, 16)))
        line = b"%b: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n"
        counters.write_bytes(head + line % name + line % b"wg0")
        assert read_traffic("wg0", counters)
        program = tmp_path / str(chance.randrange(1, 5))
        (program / "fd").mkdir(parents=True, exist_ok=True)
        (program / "comm").write_bytes(name + b"\n")
        assert read_wildcards(tmp_path) == {0x1389}
    record("names of any bytes", MANY // 10)
