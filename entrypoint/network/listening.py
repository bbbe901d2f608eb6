"""TCP ports that somebody listens on, as the kernel prints them."""

from pathlib import Path

TABLES = Path("/proc/thread-self/net")
LISTEN = "0A"
"""linux/net/tcp_states.h, in hexadecimal."""


def read_listening(tables: Path = TABLES) -> frozenset[int]:
    """Return the ports of both families; a kernel without IPv6 has only one table."""
    rows = [
        row.split()
        for table in (tables / "tcp", tables / "tcp6")
        if table.exists()
        for row in table.read_text().splitlines()[1:]
    ]
    return frozenset(int(row[1].rpartition(":")[2], 16) for row in rows if row[3] == LISTEN)
