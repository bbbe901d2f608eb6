"""Host placement: no lockout, and afterwards everything is as before (K-01, 02, 04, 07, 08, 13)."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from ipaddress import ip_address
from pathlib import Path

import pytest

from tests.conftest import Record
from tests.lab.client import Reached
from tests.lab.host_topology import (
    ADDRESSES,
    SSH,
    TCP_PUBLISHED,
    UDP,
    UDP_PUBLISHED,
    dump,
    host_lab,
    privacy_address,
)
from tests.lab.hosts import LONGEST, on_host
from tests.lab.product import Product
from tests.lab.scene import TRACE4, TRACE6, client_of, exit_of
from tests.lab.topology import HOST, Lab
from tests.lab.visitors import Knocker, Session, echoes, greeted, traced
from tests.pace import REPEAT

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with host_lab(tmp_path_factory.mktemp("cloudflare")) as lab:
        yield lab


@pytest.fixture(scope="module", params=["full", "proxy"])
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def answering(lab: Lab) -> list[object]:
    """Where the wildcard UDP server answers from the asked address while there is no product."""
    return [address for address in ADDRESSES if echoes(lab, address, UDP)]


@pytest.fixture(scope="module")
def running(
    mode: str, lab: Lab, answering: list[object], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Product]:
    with on_host(lab, tmp_path_factory.mktemp(mode) / "state", mode) as product:
        yield product.serving()


@pytest.mark.timeout(60 + 5 * REPEAT)
def test_k01_k02_k13_cycles(lab: Lab, tmp_path: Path, mode: str, record: Record) -> None:
    before = dump(lab)
    watched = [str(one) for one in ADDRESSES]
    with ExitStack() as stack:
        sessions = [Session(lab, address) for address in watched]
        for session in sessions:
            stack.callback(session.close)
        log = (tmp_path / "rules").open("w+")
        stack.callback(log.close)
        monitor = lab.popen("H", ["ip", "monitor", "rule"], stdout=log)
        stack.callback(monitor.wait)
        stack.callback(monitor.kill)
        knocker = stack.enter_context(Knocker(lab, tuple(watched)))
        begun = time.monotonic()
        for _ in range(REPEAT):
            product = on_host(lab, tmp_path / "state", mode)
            with product:
                product.serving()
            assert product.process.returncode == 0, product.log
            assert dump(lab) == before
        took = time.monotonic() - begun
        broken = [one for one in sessions if one.broken]
        longest = max(one.longest for one in sessions)
    record(
        f"K-01, {mode}: {REPEAT} starts and stops, {took / REPEAT:.1f} s each",
        f"{len(broken)} of {len(sessions)} sessions lost, longest gap {longest * 1000:.0f} ms (at most 300), "
        f"{len(knocker.failed)} of {knocker.tried} new connections failed",
    )
    assert not broken
    assert not knocker.failed
    assert longest <= LONGEST
    if mode == "full":
        in_order((tmp_path / "rules").read_text().splitlines(), times=REPEAT)


def in_order(lines: list[str], times: int) -> None:
    """K-02: the rule that saves answers is there before the tunnel's, and is removed after it."""
    rules = {"32764: from all iif lo lookup 51820": "tunnel", "32759: from 203.0.113.7 lookup main": "answer"}
    events = []
    for line in lines:
        words = " ".join(line.split())
        if what := rules.get(words.removeprefix("Deleted ")):
            events.append(("-" if words.startswith("Deleted") else "+") + what)
    both = [one for one in events if one.endswith("tunnel")]
    assert both == ["+tunnel", "+tunnel", "-tunnel", "-tunnel"] * times  # IPv4 and IPv6
    once = [one for at, one in enumerate(events) if at == 0 or events[at - 1] != one]
    assert once == ["+answer", "+tunnel", "-tunnel", "-answer"] * times, "\n".join(lines)


def test_what_starts_here_leaves_as_the_mode_says(lab: Lab, running: Product, mode: str) -> None:
    for target, own in (TRACE4, "203.0.113.7"), (TRACE6, "2001:db8:7:"):
        found = traced(lab, target)
        assert found is not None
        if mode == "full":
            assert (ip_address(found.ip), found.warp) == (ip_address(exit_of(lab, target)), "on")
        else:
            assert (found.ip.startswith(own), found.warp) == (True, "off")


def test_the_chain_works(lab: Lab, running: Product, tmp_path: Path) -> None:
    for server in ADDRESSES[0], ADDRESSES[1], ADDRESSES[3]:
        with client_of(lab, running, tmp_path, server) as client:
            assert client.trace(TRACE4).warp == "on"
            with closing(client.udp()) as association:
                association.send(b"hello", TRACE4)
                assert association.receive()[2].startswith(b"hello")


def test_k04_every_address_answers(lab: Lab, running: Product, mode: str, record: Record) -> None:
    every = (*ADDRESSES, privacy_address(lab))
    answered = sum(greeted(lab, address, SSH) is not None for address in every for _ in range(10))
    record(f"K-04, {mode}", f"{answered} of {10 * len(every)} connections to {len(every)} addresses answered")
    assert answered == 10 * len(every)


def test_k07_a_listed_wildcard_udp_server_answers_as_before(
    lab: Lab, answering: list[object], running: Product, mode: str, record: Record
) -> None:
    """Where several addresses are, a wildcard server answers from the first of them, also without us."""
    assert HOST[0] in answering
    for address in answering:
        assert all(echoes(lab, address, UDP) for _ in range(20)), address
    record(f"K-07, {mode}: wildcard UDP, listed", f"20 of 20 at each of {len(answering)} addresses")


def test_k08_neighbours_are_left_alone(lab: Lab, running: Product, mode: str, record: Record) -> None:
    ways: dict[str, tuple[Callable[[], bool], ...]] = {
        "published TCP": (
            lambda: greeted(lab, HOST[0], TCP_PUBLISHED) == "198.51.100.50",
            lambda: greeted(lab, ADDRESSES[1], TCP_PUBLISHED) == "198.51.100.50",
        ),
        "published UDP": (
            lambda: echoes(lab, HOST[0], UDP_PUBLISHED),
            lambda: echoes(lab, ADDRESSES[1], UDP_PUBLISHED),
        ),
        "from each other and the host": (
            lambda: greeted(lab, "172.17.0.2", 80, "N2") == "172.17.0.3",
            lambda: greeted(lab, "172.17.0.2", 80, "H") == "172.17.0.1",
        ),
        "their way out": (lambda: traced(lab, TRACE4, "N1") == Reached("203.0.113.7", "off"),),
    }
    worked = {name: [way() for _ in range(10) for way in among] for name, among in ways.items()}
    counts = (f"{name} {sum(found)} of {len(found)}" for name, found in worked.items())
    record(f"K-08, {mode}: neighbours as before", ", ".join(counts))
    assert all(all(found) for found in worked.values()), worked


def test_k17_metadata_is_the_hosts(lab: Lab, running: Product) -> None:
    way = lab.run("H", ["ip", "route", "get", "169.254.169.254"]).stdout
    assert "via 203.0.113.1 dev eth0" in way
