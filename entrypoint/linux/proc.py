"""Facts from /proc and cgroups: packet counters, sockets, memory limit."""

import re
from collections.abc import Iterable
from contextlib import suppress
from itertools import product
from pathlib import Path

from entrypoint.addresses import Address, literal
from entrypoint.linux.kernel_objects import Traffic

COUNTER_FILE = Path("/proc/thread-self/net/dev")


def read_traffic(device: str, counters: Path = COUNTER_FILE) -> Traffic | None:
    """Read a device's packet counters, None if it does not exist. Takes a few microseconds."""
    # As bytes, and one line alone: a name may hold any byte, and there may be a thousand interfaces.
    line = re.search(rb"^ *%b:(.*)$" % re.escape(device.encode()), counters.read_bytes(), re.MULTILINE)
    if not line:
        return None
    columns = line[1].split()
    return Traffic(rx=int(columns[1]), tx=int(columns[9]))


SOCKET_TABLES = Path("/proc/thread-self/net")
LISTEN = "0A"
"""linux/net/tcp_states.h, in hexadecimal."""


def read_listening(tables: Path = SOCKET_TABLES) -> frozenset[int]:
    """Return the listening TCP ports of both families; a kernel without IPv6 has only one table."""
    rows = [
        row.split()
        for table in (tables / "tcp", tables / "tcp6")
        if table.exists()
        for row in table.read_text().splitlines()[1:]
    ]
    return frozenset(int(row[1].rpartition(":")[2], 16) for row in rows if row[3] == LISTEN)


def read_users(tables: Path = SOCKET_TABLES) -> frozenset[int]:
    """Return the users that have sockets of IP; one that has no inode has no program any more."""
    rows = [
        row.split()
        for protocol, version in product(("tcp", "udp", "udplite", "raw"), ("", "6"))
        if (table := tables / f"{protocol}{version}").exists()
        for row in table.read_text().splitlines()[1:]
    ]
    return frozenset(int(row[7]) for row in rows if row[9] != "0")


ENGINE = "ss-warp-wireguard"
"""Our userspace WireGuard. Its socket is on a wildcard address, but its packets carry the mark."""

NAME_LENGTH = 15
"""The kernel keeps so many characters of a program's name."""


RESOLVERS = Path("/etc/resolv.conf")


def read_resolvers(configuration: Path = RESOLVERS) -> tuple[Address, ...]:
    """Return the resolvers that programs here ask."""
    try:
        lines = configuration.read_text(errors="replace").splitlines()
    except OSError:
        return ()
    named = (words[1] for line in lines if len(words := line.split()) > 1 and words[0] == "nameserver")
    return tuple(address for name in named if (address := literal(name)))


IPV6_DISABLED = Path("/proc/sys/net/ipv6/conf/default/disable_ipv6")


def read_ipv6_by_default(setting: Path = IPV6_DISABLED) -> bool:
    """Return whether a new interface has IPv6; without IPv6 in the kernel the file does not exist."""
    try:
        return setting.read_text().strip() == "0"
    except OSError:
        return False


def read_wildcards(proc: Path = Path("/proc")) -> frozenset[int]:
    """Return the UDP ports of unconnected sockets on a wildcard address, without our engine's.

    The kernel's own sockets (VXLAN, WireGuard) have no inode and choose their own source.
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
        with suppress(OSError):  # it may end meanwhile, or belong to another user
            if comm.read_bytes().strip() == program[:NAME_LENGTH].encode():  # a name may hold any bytes
                for entry in (comm.parent / "fd").iterdir():
                    kind, _, inode = str(entry.readlink()).partition(":")
                    if kind == "socket":
                        yield int(inode.strip("[]"))
