"""After the switch packets are answered by the interface as before, or everything is taken back (K-12)."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from tests.conftest import Record
from tests.lab.host_topology import ADDRESSES, SECOND_NIC, SSH, dump, host_lab
from tests.lab.hosts import on_host
from tests.lab.product import Product, eventually
from tests.lab.senders import IP_MTU_DISCOVER, IP_PMTUDISC_DO
from tests.lab.topology import HOST, WIRE, Lab
from tests.lab.visitors import Session, greeted
from tests.lab.wire import Wire
from tests.pace import longer

pytestmark = pytest.mark.lab

BY_MARK = ("rule del priority 10001", "rule add fwmark 0x65 lookup 101 priority 32765")
MARKS_SSH = """*mangle
-A OUTPUT -s 198.18.7.7 -p tcp --sport 22 -j MARK --set-mark 0x65
COMMIT
"""
MARKS_CONNECTIONS = """*mangle
-A PREROUTING -i eth1 -j CONNMARK --set-mark 0x65
-A OUTPUT -j CONNMARK --restore-mark
COMMIT
"""
UNTRACKED = """*raw
-A PREROUTING -j NOTRACK
-A OUTPUT -j NOTRACK
COMMIT
"""
HOSTILE = {
    "a mark on the answers of SSH": (BY_MARK, MARKS_SSH, "198.18.7.7 port 22 by eth0 instead of eth1"),
    "a mark by where requests come in": (
        BY_MARK,
        MARKS_CONNECTIONS,
        "198.18.7.7 port 1 with mark 0x65 by eth0 instead of eth1",
    ),
    "nothing is tracked": ((), UNTRACKED, "203.0.113.7 port 1 no longer by eth0"),
}
FAR = ("192.0.2.254", "2001:db8::fffe")


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    with host_lab(tmp_path / "cloudflare") as lab:
        yield lab


@pytest.mark.parametrize("case", HOSTILE)
def test_k12_who_would_lead_answers_elsewhere_takes_all_back(
    lab: Lab, tmp_path: Path, case: str, record: Record
) -> None:
    """A route lookup sees none of these: it knows neither marks nor what is not tracked."""
    lines, rules, words = HOSTILE[case]
    for line in lines:
        lab.run("H", ["ip", *line.split()])
    lab.run("H", ["iptables-restore", "--noflush"], text=rules)
    before = dump(lab)
    with ExitStack() as stack:
        sessions = [stack.enter_context(closing(Session(lab, address))) for address in ADDRESSES]
        product = stack.enter_context(on_host(lab, tmp_path / "state", "full"))
        assert product.ended(10) == 77, product.log
        taken_back(lab, product, words, before, sessions, record)


def taken_back(
    lab: Lab, product: Product, words: str, before: list[str], sessions: list[Session], record: Record
) -> None:
    """One line says why, nothing is left, no session was cut."""
    (said,) = (line for line in product.lines if line.startswith("ss-warp: "))
    assert words in said
    assert "rolled back" in said
    assert dump(lab) == before
    assert not any(one.broken for one in sessions)
    silence = max(one.longest for one in sessions)
    for address in ADDRESSES:
        assert greeted(lab, address, SSH), address
    record(f"K-12, {words}", f"taken back; longest silence of a session {silence * 1000:.0f} ms")
    assert silence <= longer(5)


@pytest.mark.parametrize("mode", ["full", "proxy"])
def test_k12_the_packets_that_ask_leave_no_trace(lab: Lab, tmp_path: Path, mode: str) -> None:
    """Nothing of them is on the wire, no server accepts them, no half-open connection stays."""
    with Wire(lab.name("R"), "to-h") as first, Wire(lab.name("R"), "to-h2") as second:
        with on_host(lab, tmp_path / "state", mode) as product:
            product.serving()
            assert "cannot test replies" not in product.log
            assert greeted(lab, SECOND_NIC, SSH)
            half_open = lab.run("H", ["ss", "-Htan", "state", "syn-recv"]).stdout
            assert "192.0.2." not in half_open
            assert "2001:db8::f" not in half_open
            assert "ss_warp_try" not in lab.run("H", ["nft", "list", "tables"]).stdout
        seen = [*first.strangers(), *second.strangers()]
        assert not [one for one in seen if str(one.destination) in FAR or str(one.source) in FAR]


@pytest.mark.parametrize("mode", ["full", "proxy"])
def test_l21_an_error_about_a_forwarded_packet_stays_outside(lab: Lab, tmp_path: Path, mode: str) -> None:
    """A container's link is narrower than the uplink: C is told so, and not by way of the tunnel."""
    lab.run("R", ["ip", "route", "add", "172.17.0.0/16", "via", str(HOST[0])])
    lab.run("H", ["ip", "link", "set", "docker0", "mtu", "1300"])
    with on_host(lab, tmp_path / "state", mode) as product:
        product.serving()
        with (
            Wire(lab.name("H"), "wg0", near=True) as tunnel,
            Wire(lab.name("R"), WIRE) as wire,
            lab.inside("C"),
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock,
        ):
            sock.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DO)
            sock.connect(("172.17.0.2", 4444))
            sock.send(bytes(1400))
            eventually(lambda: any(one.kind == "icmp" for one in wire.leaks()), "the error by the uplink")
            with pytest.raises(OSError, match="Message too long"):
                sock.send(bytes(1400))
        told = [one for one in wire.leaks() if one.kind == "icmp"]
        assert {one.source for one in told} == {HOST[0]}
        assert not [one for one in tunnel.leaks() if one.kind == "icmp"]
