"""Findings of `ss-warp doctor`, and what it looks at on a new machine before the first start."""

import re
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from entrypoint import desired
from entrypoint.addresses import MARK, Destination, Ports
from entrypoint.errors import Error, PlatformError, SettingsError, UnhealableError
from entrypoint.firewall.policy import FullTunnel
from entrypoint.firewall.ruleset import ruleset
from entrypoint.linux.run import run
from entrypoint.linux.world import Marked, World
from entrypoint.routing.plan import OurIds
from entrypoint.routing.uplinks import find_uplinks
from entrypoint.settings import Settings


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report; `code` is the exit code if it is a failure."""

    level: Literal["ok", "note", "FAIL"]
    text: str
    remedy: str = ""
    code: int = 0

    def __str__(self) -> str:
        return f"{self.level:4} {self.text}{f': {self.remedy}' if self.remedy else ''}"


def failed(error: Error) -> Finding:
    return Finding("FAIL", error.message, error.hint, error.exit_code)


def tried(good: str, action: Callable[[], object]) -> Finding:
    """Run an action that may raise Error; return the failure, or `good`."""
    try:
        action()
    except Error as error:
        return failed(error)
    return Finding("ok", good)


MEMORY = 128 << 20
"""Bytes; idle it uses 60 to 80 MB."""


def memory(meminfo: str, limit: str) -> Finding:
    """Judge /proc/meminfo and cgroup's memory.max."""
    found = re.search(r"MemAvailable: +([0-9]+) kB", meminfo)
    sizes = [int(found[1]) << 10] if found else []
    sizes += [int(limit)] if limit.strip().isdecimal() else []
    text = f"memory: {min(sizes, default=0) >> 20} MB available"
    if sizes and min(sizes) < MEMORY:
        return Finding("note", text, "give the container 128 MB")
    return Finding("ok", text)


def container_kind(uid_map: str) -> Finding:
    """Judge /proc/self/uid_map: a user namespace means a rootless engine."""
    inside, outside, count = (int(number) for number in uid_map.split()[:3])
    if (inside, outside) == (0, 0) and count > 1 << 31:
        return Finding("ok", "Docker: root of the host")
    text = "Docker: rootless or userns-remap; WireGuard in the kernel and the firewall need NET_ADMIN there"
    return Finding("note", text, "see docs/install.md")


SAMPLE = FullTunnel(
    device="wg0",
    addresses=(ip_address("172.16.0.2"), ip_address("2001:db8::1")),
    endpoints=frozenset({Destination(ip_address("162.159.192.1"), 2408, "udp")}),
    shadowsocks=(Ports(8388, 8388, "tcp"), Ports(8388, 8388, "udp")),
    reserved=b"\1\2\3",
)
"""A policy that needs everything that nftables must have."""


def nftables(run: Callable[[Sequence[str], str], str] = run) -> Finding:
    """Let the kernel check a whole ruleset without loading it."""
    try:
        run(("nft", "--check", "-f", "-"), ruleset(SAMPLE))
    except OSError as error:
        return failed(PlatformError(f"nftables: {error}", "the kernel needs all modules of nf_tables"))
    return Finding("ok", "nftables has everything that the firewall needs")


def _text(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""


async def look_before(settings: Settings, world: World) -> AsyncIterator[Finding]:
    """Yield what only matters on a new machine."""
    yield memory(_text("/proc/meminfo"), _text("/sys/fs/cgroup/memory.max"))
    yield container_kind(_text("/proc/self/uid_map") or "0 0 4294967295")
    yield nftables()
    port = settings.shadowsocks.port
    if port in world.netlink.listening_ports():
        yield Finding(
            "FAIL", f"port {port} is in use", "set another SHADOWSOCKS_PORT", SettingsError.exit_code
        )


async def look_up(settings: Settings, world: World) -> Finding:
    """Resolve the API's name; if no answer comes, say in which families this network has a way out at all."""
    try:
        name = urlsplit(settings.account.api_url).hostname or ""
        found = await world.http.lookup(name, settings.dns.addresses, Marked(MARK.value))
    except OSError as error:
        on_host, snapshot = desired.on_host(settings), await world.netlink.snapshot()
        seen = find_uplinks(snapshot, OurIds().links | {settings.tunnel.interface}, host=on_host).listening
        tried_by = " and ".join(f"IPv{one}" for one in sorted({address.version for address in seen}))
        remedy = "check this server's DNS and network"
        if tried_by == "IPv4" and not on_host:
            remedy += "; if it has IPv6 only, add compose.ipv6.yaml (docs/install.md)"
        text = f"no way out in any family (tried {tried_by or 'none'}): {error}"
        return Finding("FAIL", text, remedy, UnhealableError.exit_code)
    return Finding("ok", f"{name} resolves to {found[0]}")
