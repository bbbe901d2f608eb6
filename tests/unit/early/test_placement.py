"""Own or host: any doubt is the host."""

import sys
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest

from entrypoint.early.placement import (
    LinkFact,
    NamespaceFacts,
    Placement,
    gather_facts,
    judge_placement,
    placement,
)

LO = LinkFact("lo", addresses=(ip_address("127.0.0.1"),))
ETH0 = LinkFact("eth0", "veth", elsewhere=True, addresses=(ip_address("172.18.0.5"), ip_address("fd00::5")))
CONTAINER = NamespaceFacts(
    initial=False, sockets=False, links=(LO, ETH0), named=frozenset({ip_address("172.18.0.5")})
)


def with_links(*links: LinkFact) -> NamespaceFacts:
    return replace(CONTAINER, links=(LO, *links))


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (CONTAINER, "own"),
        (replace(CONTAINER, named=frozenset({ip_address("fd00::5")})), "own"),
        (with_links(ETH0, LinkFact("eth1", "macvlan", elsewhere=True)), "own"),
        (with_links(ETH0, LinkFact("eth1", "ipvlan", elsewhere=True)), "own"),
        (with_links(ETH0, LinkFact("sit0", "sit", up=False), LinkFact("tunl0", "ipip", up=False)), "own"),
        (with_links(ETH0, LinkFact("wg0", "tun"), LinkFact("ssw-null", "tun")), "own"),
        (replace(CONTAINER, initial=True), "host"),
        (replace(CONTAINER, sockets=True), "host"),
        (replace(CONTAINER, named=frozenset()), "host"),
        (replace(CONTAINER, named=frozenset({ip_address("127.0.1.1")})), "host"),
        (replace(CONTAINER, links=()), "host"),
        (with_links(), "host"),
        (with_links(replace(ETH0, elsewhere=False)), "host"),  # the other end is here: a lab, or a host's own
        (with_links(replace(ETH0, enslaved=True)), "host"),
        (with_links(replace(ETH0, kind="")), "host"),  # hardware
        (with_links(ETH0, LinkFact("eth1", "")), "host"),
        (with_links(ETH0, LinkFact("docker0", "bridge")), "host"),
        (with_links(ETH0, LinkFact("tun0", "tun")), "host"),
        (with_links(ETH0, LinkFact("sit1", "sit", up=True)), "host"),
        (with_links(LinkFact("wg0", "tun", addresses=(ip_address("172.18.0.5"),))), "host"),
    ],
)
def test_own_only_when_every_fact_says_so(facts: NamespaceFacts, expected: Placement) -> None:
    assert judge_placement(facts) == expected


PUBLIC = ip_address("203.0.113.7")
NIC = LinkFact("eth0", addresses=(PUBLIC,))
LXC = replace(ETH0, addresses=(PUBLIC,))
DOCKER0 = LinkFact("docker0", "bridge", addresses=(ip_address("172.17.0.1"),))
NEIGHBOURS = LinkFact("veth1a2b3c4", "veth", elsewhere=True, enslaved=True)
LOOPED = frozenset({ip_address("127.0.1.1")})
"""What Debian's /etc/hosts gives to the host name."""
PLACES: dict[str, tuple[NamespaceFacts, Placement]] = {
    "plain VPS": (NamespaceFacts(True, True, (LO, NIC), LOOPED), "host"),
    "VPS whose /etc/hosts names its address": (
        NamespaceFacts(True, True, (LO, NIC), frozenset({PUBLIC})),
        "host",
    ),
    "LXC VPS, its uplink is a veth": (NamespaceFacts(False, True, (LO, LXC), frozenset({PUBLIC})), "host"),
    "LXC VPS without a daemon": (NamespaceFacts(False, False, (LO, LXC), LOOPED), "host"),
    "OpenVZ VPS": (
        NamespaceFacts(False, True, (LO, LinkFact("venet0", addresses=(PUBLIC,))), LOOPED),
        "host",
    ),
    "Docker host": (NamespaceFacts(True, True, (LO, NIC, DOCKER0, NEIGHBOURS), LOOPED), "host"),
    "Docker host in an LXC VPS": (
        NamespaceFacts(False, True, (LO, LXC, DOCKER0, NEIGHBOURS), LOOPED),
        "host",
    ),
    "the same, without a listener": (
        NamespaceFacts(False, False, (LO, LXC, DOCKER0), frozenset({PUBLIC})),
        "host",
    ),
    "Kubernetes node": (
        NamespaceFacts(
            True,
            True,
            (LO, NIC, LinkFact("cni0", "bridge"), LinkFact("flannel.1", "vxlan"), NEIGHBOURS),
            LOOPED,
        ),
        "host",
    ),
    "pod with listening siblings": (replace(CONTAINER, sockets=True), "host"),
    "our own container": (CONTAINER, "own"),
    "our own container on two networks": (
        with_links(ETH0, LinkFact("eth1", "veth", elsewhere=True, addresses=(ip_address("172.19.0.5"),))),
        "own",
    ),
    "our own container after a kill": (
        with_links(ETH0, LinkFact("wg0", "tun"), LinkFact("ssw-null", "tun")),
        "own",
    ),
}


@pytest.mark.parametrize("place", PLACES)
def test_places_as_people_have_them(place: str) -> None:
    facts, expected = PLACES[place]
    assert judge_placement(facts) == expected


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [("own", "own"), (" OWN\n", "own"), ("host", "host"), ("Host", "host"), ("owm", "host"), ("yes", "host")],
)
def test_what_is_wanted_counts_and_rubbish_is_the_host(wanted: str, expected: Placement) -> None:
    assert placement(wanted) == expected


def row(address: str) -> str:
    """A row of /proc/net/tcp, as this machine writes it."""
    packed = ip_address(address).packed
    words = (packed[at : at + 4] for at in range(0, len(packed), 4))
    text = "".join(f"{int.from_bytes(word, sys.byteorder):08X}" for word in words)
    return f"   0: {text}:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1\n"


def proc(root: Path, **rows: str) -> Path:
    """A /proc of a container; `rows` are added to the tables."""
    for table in ("unix", "packet", "tcp", "udp", "raw", "tcp6", "udp6", "raw6"):
        file = root / "net" / table
        file.parent.mkdir(exist_ok=True)
        file.write_text("  sl  local_address\n" + rows.get(table, ""))
    (root / "sys/net/core").mkdir(parents=True)
    return root


@pytest.mark.parametrize(
    ("rows", "sockets"),
    [
        ({}, False),
        ({"tcp": row("127.0.0.11"), "udp": row("127.0.0.11")}, False),
        ({"tcp": row("127.0.0.11") + row("127.0.0.1")}, True),
        ({"udp": row("0.0.0.0")}, True),
        ({"tcp6": row("::")}, True),
        ({"raw": row("127.0.0.12")}, True),
        ({"unix": "ffff: 00000002 00000000 00010000 0001 01 1 /run/x\n"}, True),
        ({"packet": "ffff 3 3 0003 2 1 0 0 1\n"}, True),
    ],
)
def test_sockets_of_others_are_seen(tmp_path: Path, rows: dict[str, str], sockets: bool) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text("")
    facts = gather_facts(proc(tmp_path, **rows), hosts)
    assert facts.sockets == sockets
    assert not facts.initial
    assert "lo" in {link.name for link in facts.links}


def test_the_initial_namespace_is_known_by_its_sysctl(tmp_path: Path) -> None:
    root = proc(tmp_path)
    (root / "sys/net/core/dev_weight").write_text("64\n")
    (root / "hosts").write_text("")
    assert gather_facts(root, root / "hosts").initial


def test_what_cannot_be_read_is_an_error_and_so_the_host(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="unix"):
        gather_facts(tmp_path, tmp_path / "hosts")
    root = proc(tmp_path, tcp="garbage garbage\n")
    with pytest.raises(ValueError, match="invalid literal"):
        gather_facts(root, root / "hosts")
