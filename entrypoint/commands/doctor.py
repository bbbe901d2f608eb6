"""`ss-warp doctor`: what is wrong here, and what to do; a line each. Changes nothing."""

import socket
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import anyio

from entrypoint import desired
from entrypoint.account.store import exists, read
from entrypoint.addresses import DHCP_PORTS, MARK, Endpoint, NamedEndpoint, Ports
from entrypoint.early import preflight
from entrypoint.early.placement import kernel_has_wireguard, require_tun
from entrypoint.errors import Error, PlatformError, SettingsError, StateError, UnhealableError
from entrypoint.health.probe import QUERY_NAME
from entrypoint.linux import state_dir
from entrypoint.linux.kernel_objects import Snapshot
from entrypoint.linux.proc import read_wildcards
from entrypoint.linux.sockets import open_socket
from entrypoint.linux.state_dir import ACCOUNT_FILE
from entrypoint.linux.world import Bound, Marked, World
from entrypoint.routing.plan import OurIds
from entrypoint.routing.uplinks import find_uplinks
from entrypoint.settings import Settings

BUILD_TIME: Final = Path(__file__).stat().st_mtime
YEARS: Final = 10 * 365 * 86400
RESOLVER_TIMEOUT: Final = 2.0
"""Seconds for an answer from a resolver."""
REFUSAL_TIMEOUT: Final = 0.3
"""Seconds in which somebody on the way would have refused a datagram."""
BLOCKED: Final = (
    "UDP may be blocked where this server is: try WARP_ENDPOINTS with other ports, "
    "e.g. 162.159.192.1:500,162.159.192.1:1701,162.159.192.1:4500"
)


@dataclass(frozen=True, slots=True)
class Finding:
    """One line. `code` is the exit code that a failure deserves; a note is no failure."""

    level: Literal["ok", "note", "FAIL"]
    text: str
    remedy: str = ""
    code: int = 0

    def __str__(self) -> str:
        return f"{self.level:4} {self.text}{f': {self.remedy}' if self.remedy else ''}"


def failed(error: Error) -> Finding:
    """Return the finding that an error is."""
    return Finding("FAIL", error.message, error.hint, error.exit_code)


def tried(good: str, action: Callable[[], object]) -> Finding:
    """Return what came of an action that raises Error."""
    try:
        action()
    except Error as error:
        return failed(error)
    return Finding("ok", good)


def clock(now: float, built: float = BUILD_TIME) -> Finding:
    """Judge the time: a handshake from the future makes the edge refuse all that come after."""
    text = time.strftime("the clock says %Y-%m-%d %H:%M UTC", time.gmtime(now))
    if built - 86400 <= now <= built + YEARS:
        return Finding("ok", text)
    return Finding("FAIL", text, "set it on the host (timedatectl set-ntp true)", PlatformError.exit_code)


def engine(implementation: str, has_wireguard: Callable[[], bool] = kernel_has_wireguard) -> Finding:
    """Tell who would carry WireGuard's packets."""
    if implementation != "userspace" and has_wireguard():
        return Finding("ok", "WireGuard: the kernel's")
    hint = "on the host: modprobe wireguard"
    if implementation == "kernel":
        return failed(
            PlatformError("this kernel has no WireGuard", f"WIREGUARD_IMPLEMENTATION=auto, or {hint}")
        )
    wish = "" if implementation == "userspace" else f"faster by the kernel: {hint}"
    return Finding("note" if wish else "ok", "WireGuard: wireguard-go", wish)


def surroundings(settings: Settings, snapshot: Snapshot, wildcards: frozenset[int]) -> Iterator[Finding]:
    """Judge what is around: a way out, IPv6, and servers whose answers would go astray."""
    host, mode = desired.on_host(settings), desired.route_mode(settings)
    found = find_uplinks(snapshot, OurIds().links | {settings.tunnel.interface}, host=host)
    place = "the host's network" if host else "a network of its own"
    where = f"{place}, ROUTE_MODE={mode}, uplink {', '.join(found.links) or 'none'}"
    yield tried(where, lambda: desired.require_uplink(snapshot, found))
    if settings.routing.network == "auto":
        yield Finding("note", "NETWORK=auto is judged at the start", "set it to own or host")
    if 6 in settings.tunnel.families and 6 not in found.families:
        remedy = 'sysctls: {net.ipv6.conf.all.disable_ipv6: "0"} gives clients IPv6 by WARP'
        yield Finding("note", "no IPv6 here", remedy)
    for port in unlisted_ports(wildcards, settings.firewall.input_ports) if host and mode == "full" else ():
        yield Finding(
            "FAIL",
            f"the server on UDP port {port}{_service(port)} would answer by WARP: it is bound to no address",
            f"FIREWALL_INPUT_PORTS={port}/udp, or ROUTE_MODE=proxy",
            SettingsError.exit_code,
        )


def _service(port: int) -> str:
    try:
        return f" ({socket.getservbyport(port, 'udp')})"
    except OSError:
        return ""


def supervisor(status: Mapping[str, Any]) -> Finding:
    """Tell what the one that runs here says of itself; empty: none runs."""
    match status.get("state"):
        case None:
            return Finding("note", "ss-warp does not run here")
        case "connected":
            exits = ", ".join(str(one) for one in status["exit"].values() if one)
            return Finding("ok", f"connected: warp={status['warp']} by {exits}")
        case state:
            return Finding("FAIL", f"{state}: {status['reason']}", BLOCKED, UnhealableError.exit_code)


async def resolvers(settings: Settings, world: World, way: Marked | Bound) -> AsyncIterator[Finding]:
    """Ask each of DNS_ADDRESSES of the tunnel's families, this way."""
    by = "the tunnel" if isinstance(way, Bound) else "the uplink"
    for server in settings.dns.addresses:
        if server.version in settings.tunnel.families:
            try:
                await world.http.ask(server, QUERY_NAME, way, limit=RESOLVER_TIMEOUT)
            except OSError as error:
                why = error.strerror or str(error)
                yield Finding(
                    "note", f"no answer from resolver {server} by {by} ({why})", "set DNS_ADDRESSES to others"
                )
            else:
                yield Finding("ok", f"resolver {server} answers by {by}")


async def edge(endpoint: Endpoint) -> Finding:
    """Send a datagram to an endpoint: whether somebody on the way refuses it, more cannot be seen."""
    sock = open_socket(Marked(MARK.value), endpoint.address, socket.SOCK_DGRAM)
    with sock:
        try:
            sock.connect((str(endpoint.address), endpoint.port))
            sock.send(b"\0")
            with anyio.move_on_after(REFUSAL_TIMEOUT):
                await anyio.wait_readable(sock)
                sock.recv(1)
        except OSError as error:
            text = f"UDP to {endpoint} is refused: {error.strerror}"
            return Finding("FAIL", text, BLOCKED, UnhealableError.exit_code)
    return Finding("ok", f"UDP to {endpoint} leaves and nobody refuses it")


async def report(settings: Settings, world: World, status: Mapping[str, Any]) -> int:
    """Print a line for each finding as it comes; return the first failure's exit code, 0 without any."""
    code = 0
    async for finding in examine(settings, world, status):
        print(finding, flush=True)
        code = code or finding.code
    return code


async def examine(settings: Settings, world: World, status: Mapping[str, Any]) -> AsyncIterator[Finding]:
    """Yield every finding, causes before what they cause."""
    capabilities, release = preflight.read_privileges()
    able = tried(
        f"capabilities and kernel ({release}) suffice",
        lambda: preflight.check_privileges(capabilities, release),
    )
    yield able
    yield clock(world.clock.wall())
    if able.code:
        return
    yield engine(settings.tunnel.implementation)
    yield tried("/dev/net/tun opens", lambda: require_tun(settings.tunnel.implementation))
    finding, held = volume(settings.account.state_dir)
    yield finding
    snapshot = await world.netlink.snapshot()
    for finding in surroundings(settings, snapshot, read_wildcards()):
        yield finding
    try:
        closed = bool(await world.nft.listing("inet", "ss_warp"))
        yield Finding("ok", f"nftables: our table is {'' if closed else 'not '}loaded")
    except OSError as error:
        yield failed(PlatformError(f"nftables: {error}", "the kernel needs nf_tables"))
        return
    status = status if held else {}
    yield supervisor(status)
    if status.get("state") == "connected":
        async for finding in resolvers(settings, world, Bound(settings.tunnel.interface)):
            yield finding
    elif not closed:
        async for finding in resolvers(settings, world, Marked(MARK.value)):
            yield finding
        for endpoint in endpoints(settings, snapshot):
            yield await edge(endpoint)


def endpoints(settings: Settings, snapshot: Snapshot) -> Sequence[Endpoint]:
    """Return the first endpoint of each family that this machine has, as set or as the account says."""
    named: Sequence[Endpoint | NamedEndpoint] = settings.tunnel.endpoints
    with suppress(StateError):  # no account yet
        named = named or read(settings.account.state_dir / ACCOUNT_FILE).account.endpoints
    families = {one.version for one in find_uplinks(snapshot, OurIds().links).addresses}
    literal = [one for one in named if isinstance(one, Endpoint) and one.address.version in families]
    return [*{one.address.version: one for one in reversed(literal)}.values()]


def volume(directory: Path) -> tuple[Finding, bool]:
    """Tell whether the state can be used, and whether somebody runs on it."""
    kept = "an account is kept" if exists(directory) else "no account yet"
    good = Finding("ok", f"state in {directory}: {kept}")
    try:
        with state_dir.lock(directory):
            return good, False
    except state_dir.HeldError:
        return good, True
    except Error as error:
        return failed(error), False


def unlisted_ports(wildcards: Iterable[int], named: Iterable[Ports]) -> list[int]:
    """Return the ports whose answers would go astray; leases are renewed by a rule of their own."""
    spans = [(ports.first, ports.last) for ports in named if ports.transport == "udp"]
    clients = {client for client, _ in DHCP_PORTS.values()}
    return [
        port
        for port in sorted({*wildcards} - clients)
        if not any(first <= port <= last for first, last in spans)
    ]
