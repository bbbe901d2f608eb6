"""UDP servers on a wildcard address: in mode full on a host their answers need FIREWALL_INPUT_PORTS."""

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

from entrypoint.network.plan import Ports
from entrypoint.network.planning import DHCP

ENGINE: Final = "wireguard-go"
"""It marks what it sends."""


def read_wildcards(proc: Path = Path("/proc")) -> frozenset[int]:
    """Return the ports of sockets bound to a wildcard address and connected to nobody, but our engine's.

    The kernel's own sockets (VXLAN, WireGuard) have no inode and send with a source of their own.
    """
    ours = frozenset(_sockets_of(ENGINE, proc))
    rows = [
        row.split()
        for table in (proc / "thread-self/net/udp", proc / "thread-self/net/udp6")
        if table.exists()
        for row in table.read_text().splitlines()[1:]
    ]
    return frozenset(
        int(row[1].rpartition(":")[2], 16)
        for row in rows
        if not row[1].rpartition(":")[0].strip("0")
        and not row[2].replace(":", "").strip("0")
        and int(row[9]) not in {0, *ours}
    )


def _sockets_of(program: str, proc: Path) -> Iterable[int]:
    for comm in proc.glob("[0-9]*/comm"):
        with suppress(OSError):  # it may end, or be somebody else's, while we look
            if comm.read_text().strip() == program:
                for entry in (comm.parent / "fd").iterdir():
                    kind, _, inode = str(entry.readlink()).partition(":")
                    if kind == "socket":
                        yield int(inode.strip("[]"))


def unnamed(wildcards: Iterable[int], named: Iterable[Ports]) -> list[int]:
    """Return the ports whose answers would go astray; leases are renewed by a rule of their own."""
    spans = [(ports.first, ports.last) for ports in named if ports.transport == "udp"]
    clients = {client for client, _ in DHCP.values()}
    return [
        port
        for port in sorted({*wildcards} - clients)
        if not any(first <= port <= last for first, last in spans)
    ]
