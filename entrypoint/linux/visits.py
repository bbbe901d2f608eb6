"""Visits to our own addresses from far away, to see by which interface answers leave; nothing leaves.

A socket that may have any address (IP_TRANSPARENT) connects from an unused one, by the loopback
interface. What answers is what answers SSH: this host's own sockets, through its routes, marks and
firewall. A chain behind everybody else's notes the interface and drops the answer, so that no program accepts
the connection. A route lookup would know nothing of rules that mark packets, drop or do not track them.
"""

import re
import socket
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from ipaddress import IPv4Address, IPv6Address

import anyio
import anyio.to_thread

from entrypoint.addresses import Address, Family
from entrypoint.linux.kernel_objects import Visit
from entrypoint.linux.run import run
from entrypoint.linux.sock_diag import close_half_open
from entrypoint.unwind import UnwindStack

# Documentation addresses: routed like any other, and never anyone's.
FAR_AWAY: dict[Family, Address] = {4: IPv4Address("192.0.2.254"), 6: IPv6Address("2001:db8::fffe")}
"""Addresses somewhere on the internet, for route lookups and visits; nothing is sent to them."""

MOST_MARKS = 100
"""Each mark has visitors from an address of its own, counted down from FAR_AWAY."""

IPV6_TRANSPARENT = 75
"""linux/in6.h; Python names only IPv4's."""

LOAD = ("nft", "-f", "-")
TABLE = "inet ss_warp_try"
REMOVE = f"table {TABLE}\ndelete table {TABLE}\n"
SEEN = re.compile(r'"([^"\n]+)" \. ([0-9]+)')
PAUSE = 0.05
FIRST, MOST_LOOKS = 4, 30
"""Looks for answers that nothing is known of, and for those that came before: a SYN is repeated after 1 s."""


async def visit(visits: Sequence[Visit], expected: Mapping[Visit, str]) -> dict[Visit, str]:
    """Return the interface that each visit's answer leaves by; what is not answered is left out.

    Wait a moment for what is missing, longer where answers are `expected`. Raises OSError where the kernel
    lacks a piece.
    """
    marks = sorted({0, *(one.mark for one in visits)})[:MOST_MARKS]

    async def nft(argv: Sequence[str], text: str = "") -> str:
        return await anyio.to_thread.run_sync(run, argv, text)

    found: dict[Visit, str] = {}
    async with UnwindStack() as stack:
        sockets = stack.enter_context(ExitStack())
        sockets.callback(_end, marks)
        stack.undo(TABLE, partial(nft, LOAD, REMOVE))
        await nft(LOAD, chains(marks))
        came: dict[int, Visit] = {}
        for one in visits:
            if one.mark in marks:
                came[_connect(sockets, one, marks.index(one.mark), came)] = one
        for _ in range(MOST_LOOKS if expected else FIRST):
            listed = await nft(("nft", "list", "set", *TABLE.split(), "seen"))
            found = {came[int(port)]: device for device, port in SEEN.findall(listed) if int(port) in came}
            elsewhere = any(found.get(one, device) != device for one, device in expected.items())
            if elsewhere or len(found) == len(visits):
                break
            await anyio.sleep(PAUSE)
    return found


def chains(marks: Sequence[int]) -> str:
    """Return a table that marks, notes and ends the answers to visitors; the first mark is none."""
    # Before the chains that look at marks, and where others restore it from.
    marked = [
        f"{word} daddr {FAR_AWAY[version] - number} ct mark set {mark} meta mark set {mark}"
        for number, mark in enumerate(marks)
        for version, word in WORDS.items()
        if mark
    ]
    whose = [f"{word} daddr {VISITORS[version]} meta l4proto tcp" for version, word in WORDS.items()]
    noted = [f"{one} jump note" for one in whose]
    bodies = {
        "set seen": ("type ifname . inet_service", "flags dynamic", "size 65535"),
        "chain note": ("add @seen { oifname . tcp dport }",),
        "chain restored": ("type route hook output priority -151", *marked),
        # After a change of the mark another interface is known to this hook alone.
        "chain here": (
            "type filter hook postrouting priority 2000",
            *noted,
            *(f"{one} drop" for one in whose),
        ),
        # Docker leads connections to a published port into a container, whose answer is forwarded. The
        # reset goes to the server there. A reset as an answer gets none, and is dropped.
        "chain behind": (
            "type filter hook forward priority 2000",
            *noted,
            *(f"{one} reject with tcp reset" for one in whose),
        ),
    }
    text = "".join("\n".join((f"{head} {{", *body, "}\n")) for head, body in bodies.items())
    return f"{REMOVE}table {TABLE} {{\n{text}}}\n"


WORDS: dict[Family, str] = {4: "ip", 6: "ip6"}
VISITORS: dict[Family, str] = {4: "192.0.2.128/25", 6: "2001:db8::ff00/120"}


def _end(marks: Sequence[int]) -> None:
    """End the visits before a program accepts them."""
    # Without SOCK_DESTROY the kernel repeats its answers for a minute, to unused addresses.
    with suppress(OSError):
        close_half_open({far - number for far in FAR_AWAY.values() for number, _ in enumerate(marks)})


def _connect(sockets: ExitStack, one: Visit, number: int, taken: Collection[int]) -> int:
    """Connect from a port of its own, which says whose answer it is; return the port."""
    version = one.address.version
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    while True:
        kind = socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        sock = sockets.enter_context(socket.socket(family, kind))
        if version == 4:
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_TRANSPARENT, 1)
        else:
            sock.setsockopt(socket.IPPROTO_IPV6, IPV6_TRANSPARENT, 1)
        sock.bind((str(FAR_AWAY[version] - number), 0))
        port = int(sock.getsockname()[1])
        if port not in taken:
            sock.connect_ex((str(one.address), one.port))
            return port
