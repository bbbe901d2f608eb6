"""A tunnel that is well: what goes through Shadowsocks, and what does not (L-01 to L-03, 13, 16, 26, 27)."""

import http.client
import socket
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from ipaddress import ip_address
from pathlib import Path

import pytest

from tests.cloudflare.config import EDGE_PORTS
from tests.conftest import Record
from tests.lab.client import Association, Target
from tests.lab.leaks.injected import ENDPOINT
from tests.lab.leaks.stage import PROBES, Ground, Stage
from tests.lab.probes import Prober
from tests.lab.product import eventually
from tests.lab.scene import TRACE4, TRACE6
from tests.lab.senders import MARKED, PUBLIC, SSSERVER, Kind, seen
from tests.lab.topology import HOST
from tests.lab.wire import Wire

pytestmark = [pytest.mark.lab, pytest.mark.timeout(120 + PROBES // 10)]

TARGETS: tuple[Target, ...] = (TRACE4, TRACE6, "v4.origin.test", "v6.origin.test", "origin.test")
AT_ONCE = 50
MARKER = Kind("through Shadowsocks").payload
NOWHERE = (
    *("224.0.0.251", "239.255.255.250", "255.255.255.255", "203.0.113.255", "10.255.255.255"),
    *("ff02::fb", "ff02::1:3", "ff05::c"),
)
"""mDNS, SSDP, broadcasts, mDNS and LLMNR by IPv6, SSDP there."""


@pytest.mark.vm
def test_l01_with_the_product_off_every_probe_is_seen(ground: Ground, record: Record) -> None:
    for how, (sent, saw) in ground.control.items():
        assert sent == saw, how
        record(
            f"L-01, {ground.name}, {how}", f"{saw.total()} of {sent.total()} probes of {len(sent)} kinds seen"
        )
    assert min(ground.control["as it is"][0].values()) >= PROBES


def test_l02_l03_l26_mixed_probes_through_shadowsocks(stage: Stage, record: Record) -> None:
    """The origin sees the edge's addresses alone, IPv6 literals and names by its IPv6 (L-03).

    Answers come from the server's address and port, and tell the exit's (L-26), as STUN does.
    """
    device = stage.lab.cloudflare.edge.devices()[-1]
    exits = {TRACE4: {device.exit4}, TRACE6: {device.exit6}, "v4.origin.test": {device.exit4}}
    exits |= {"v6.origin.test": {device.exit6}, "origin.test": {device.exit4, device.exit6}}
    stage.lab.cloudflare.origin.forget()
    each = PROBES * (10 if stage.ground.own and stage.full else 1) // len(TARGETS)
    with stage.watched(), Wire(stage.lab.name("R"), "to-c") as cable:
        asked = 0
        for target in TARGETS:
            told = echoed(stage, target, each)
            assert told.total() == each
            assert set(told) <= exits[target], target
            asked += told.total()
            for _ in range(PROBES // 50):
                assert stage.scene.client.trace(target).ip in exits[target]
                asked += 1
    visitors = {one.source for one in stage.lab.cloudflare.origin.seen()}
    assert visitors == {device.exit4, device.exit6}
    frames = [one for one in cable.strangers() if one.kind == "udp" and not one.from_host]
    assert {(one.source, one.source_port) for one in frames} == {(HOST[0], 8388)}
    record(
        f"L-02, L-03, L-26, {stage.name}",
        f"{asked} of {asked} answered, the origin saw the edge alone, 0 in clear",
    )


def echoed(stage: Stage, target: Target, count: int) -> Counter[str]:
    """Send so many echoes through Shadowsocks; return the source addresses that the origin told."""
    told: dict[int, str] = {}
    with closing(stage.scene.client.udp(timeout=0.5)) as association:

        def answered() -> bool:
            missing = [number for number in range(count) if number not in told][:AT_ONCE]
            for number in missing:
                association.send(b"%d" % number, target)
            with suppress(TimeoutError):
                for _ in missing:
                    question, _, source = association.receive()[2].partition(b"|")
                    told[int(question)] = source.split()[0].decode()
            return len(told) == count

        eventually(answered, f"{count} echoes from {target}", 30 + count / 50)
    return Counter(told.values())


def test_l02_nothing_of_others_in_clear(stage: Stage, record: Record) -> None:
    record(
        f"L-02, {stage.name}, who goes around Shadowsocks",
        f"0 of {stage.keeps(stage.kinds, PROBES // 3)} probes in clear",
    )


def test_l16_a_marker_for_the_edges_own_address(stage: Stage, record: Record) -> None:
    """ServerIP: what a client sends to the edge is not readable on the way there."""
    ports = (*EDGE_PORTS, 443)
    with (
        stage.watched(),
        Wire(stage.lab.name("H"), "wg0", near=True) as tunnel,
        closing(stage.scene.client.udp(timeout=0.2)) as association,
    ):
        for _ in range(10):
            for port in ports:
                association.send(MARKER, TRACE4, 7)
                for address in addresses(ENDPOINT):
                    association.send(MARKER, address, port)
        for address in addresses(ENDPOINT):
            with suppress(OSError), stage.scene.client.tcp(address, 443, timeout=1) as stream:
                stream.sendall(MARKER)
        eventually(lambda: echo(association), "what goes elsewhere meanwhile is answered")
        # Encrypted: an observer in the tunnel reads them all.
        eventually(lambda: marked(tunnel) >= 10 * 3 * len(ports), "all of them went into the tunnel")
    record(f"L-16, {stage.name}, through Shadowsocks", f"0 of {20 * len(ports)} markers readable on the wire")


def echo(association: Association) -> bool:
    association.send(MARKER, TRACE4, 7)
    with suppress(TimeoutError):
        return MARKER in association.receive()[2]
    return False


def marked(wire: Wire) -> int:
    """Return how many of our datagrams it saw leave."""
    return sum(one.kind == "udp" and bool(MARKED.search(one.payload)) for one in wire.leaks())


def addresses(texts: Sequence[str]) -> list[Target]:
    return [ip_address(one) for one in texts]


def test_l27_multicast_and_broadcast_go_nowhere(stage: Stage, record: Record) -> None:
    with (
        stage.watched(),
        Wire(stage.lab.name("H"), "wg0", near=True) as tunnel,
        closing(stage.scene.client.udp(timeout=5)) as association,
    ):
        for _ in range(20):
            for address in addresses(NOWHERE):
                association.send(MARKER, address, 5353)
        association.send(MARKER, TRACE4)
        association.receive()
        # The wire inside shows what passes: the echo's question, and nothing else.
        assert marked(tunnel) == 1
    record(f"L-27, {stage.name}", f"0 of {20 * len(NOWHERE)} on the uplink, 0 in the tunnel")


FORBIDDEN = (
    *("224.0.0.251", "239.255.255.250", "255.255.255.255", "203.0.113.255", "10.1.2.3", "172.20.0.1"),
    *("192.168.1.1", "100.100.100.200", "169.254.169.254", "ff02::fb", "ff05::c", "fd00::1", "fe80::1"),
)


def test_l27_nor_does_the_firewall_let_ssserver_send_there(stage: Stage, record: Record) -> None:
    """Without its own list: what its user sends by wg0 itself. To a public address it is seen there."""
    rules = [
        Kind(f"to {target}", 6 if ":" in target else 4, SSSERVER, device="wg0", target=target)
        for target in (*FORBIDDEN, *PUBLIC)
    ]
    with (
        stage.watched(),
        Wire(stage.lab.name("H"), "wg0", near=True) as tunnel,
        Prober(stage.lab, rules) as prober,
    ):
        tried = prober.probed(20)
    found = seen(tunnel)
    assert min(found[f"to {one}"] for one in PUBLIC) >= 20
    assert {*found} == {f"to {one}" for one in PUBLIC}
    record(f"L-27, {stage.name}, without its list", f"0 of {tried} by wg0 to {len(FORBIDDEN)} addresses")


@contextmanager
def local_resolver(stage: Stage) -> Iterator[list[bytes]]:
    """Listen at 127.0.0.11, as Docker's does; the product's resolv.conf names it. Yield what came."""
    heard: list[bytes] = []
    with ExitStack() as stack:
        with stage.lab.inside("H"):
            sock = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        sock.bind(("127.0.0.11", 53))
        sock.settimeout(0.1)
        stopping = threading.Event()

        def listen() -> None:
            while not stopping.is_set():
                with suppress(TimeoutError):
                    heard.append(sock.recv(512))

        thread = threading.Thread(target=listen, daemon=True)
        thread.start()
        stack.callback(thread.join)
        stack.callback(stopping.set)
        inside = ["nsenter", f"--mount=/proc/{stage.scene.product.pid}/ns/mnt", "sh", "-c"]
        text = "search lan.example\\nnameserver 127.0.0.11\\nnameserver 203.0.113.1\\n"
        into = "mount --bind /run/resolv.conf /etc/resolv.conf"
        subprocess.run([*inside, f"printf '{text}' >/run/resolv.conf && {into}"], check=True)
        stack.callback(subprocess.run, [*inside, "umount /etc/resolv.conf"], check=True)
        yield heard


def resolves(stage: Stage, name: str, timeout: float = 5.0) -> bool:
    with suppress(OSError, http.client.HTTPException, AssertionError):
        return stage.scene.client.trace(name, timeout).warp == "on"
    return False


def test_l13_names_are_asked_by_the_tunnel_alone(stage: Stage, record: Record) -> None:
    """Resolvers that are down or lossy, search domains, a local resolver, a resolv.conf that changes."""
    table = "table inet down { chain c { type filter hook input priority 0; th dport 53 %s; }; }"
    origin = Path(stage.lab.cloudflare.namespaces()["origin"])
    faults = {"well": "", "lossy": table % "numgen inc mod 2 0 drop", "down": table % "drop"}
    got = {}
    with stage.watched() as wire, local_resolver(stage) as heard:
        for how, rules in faults.items():
            if rules:
                subprocess.run(
                    ["nsenter", f"--net={origin}", "nft", "-f", "-"], input=rules.encode(), check=True
                )
            names = [f"{how}-{number}.origin.test" for number in range(5)] + ["origin.test"]
            got[how] = [resolves(stage, name, 1.0 if how == "down" else 5.0) for name in names]
            if rules:
                subprocess.run(
                    ["nsenter", f"--net={origin}", "nft", "delete", "table", "inet", "down"], check=True
                )
        asked = [one for one in wire.strangers() if {one.source_port, one.destination_port} & {53, 853}]
        assert not asked
        assert not wire.counts().get("dns"), "nor for the supervisor"
        assert heard == [], "nor of a resolver on loopback"
    stage.whole(30)
    assert got["well"][-1] and got["lossy"][-1]
    record(
        f"L-13, {stage.name}",
        "18 names, resolver well, lossy, down: 0 packets of DNS on the uplink, 0 to 127.0.0.11",
    )
