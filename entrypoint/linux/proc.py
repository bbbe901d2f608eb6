"""A device's packet counters, as the kernel prints them."""

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

from entrypoint.linux.kernel_objects import Traffic

COUNTER_FILE = Path("/proc/thread-self/net/dev")


def read_traffic(device: str, counters: Path = COUNTER_FILE) -> Traffic | None:
    """Read the device's packet counters; None when there is no such device. A few microseconds."""
    for line in counters.read_text().splitlines():
        name, _, rest = line.partition(":")
        if name.strip() == device:
            numbers = rest.split()
            return Traffic(rx=int(numbers[1]), tx=int(numbers[9]))
    return None


SOCKET_TABLES = Path("/proc/thread-self/net")
LISTEN = "0A"
"""linux/net/tcp_states.h, in hexadecimal."""


def read_listening(tables: Path = SOCKET_TABLES) -> frozenset[int]:
    """Return the ports of both families; a kernel without IPv6 has only one table."""
    rows = [
        row.split()
        for table in (tables / "tcp", tables / "tcp6")
        if table.exists()
        for row in table.read_text().splitlines()[1:]
    ]
    return frozenset(int(row[1].rpartition(":")[2], 16) for row in rows if row[3] == LISTEN)


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


def memory_limit(cgroup: Path) -> int | None:
    """Return our memory limit in bytes (cgroup v2, else v1), None when there is none."""
    for file in (cgroup / "memory.max", cgroup / "memory" / "memory.limit_in_bytes"):
        try:
            text = file.read_text().strip()
        except OSError:
            continue
        # v1 says "unlimited" by a number close to 2^63.
        return int(text) if text.isdecimal() and int(text) < 1 << 62 else None
    return None
