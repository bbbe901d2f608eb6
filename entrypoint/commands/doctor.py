"""`ss-warp doctor`: one line per finding, with the remedy. Changes nothing."""

import os
import socket
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from entrypoint import desired
from entrypoint.account.store import exists, read
from entrypoint.addresses import DHCP_PORTS, MARK, Destination, Endpoint, NamedEndpoint, Ports
from entrypoint.commands.machine import Finding, failed, look_before, look_up, tried
from entrypoint.discovery import KNOCK_TIMEOUT, look_outside
from entrypoint.early import preflight
from entrypoint.errors import DefectError, Error, PlatformError, SettingsError, StateError, UnhealableError
from entrypoint.health.diagnosis import Evidence, diagnose
from entrypoint.health.probe import QUERY_NAME
from entrypoint.linux import state_dir
from entrypoint.linux.kernel_objects import Snapshot
from entrypoint.linux.proc import ENGINE, read_wildcards
from entrypoint.linux.state_dir import ACCOUNT_FILE
from entrypoint.linux.world import Bound, Marked, World
from entrypoint.routing.plan import OurIds
from entrypoint.routing.uplinks import Uplinks, find_uplinks
from entrypoint.settings import Settings
from entrypoint.status.states import USABLE
from entrypoint.wireguard.open import kernel_has_wireguard

# The clock cannot be earlier than the image's own files.
BUILD_TIME = Path(__file__).stat().st_mtime
YEARS = 10 * 365 * 86400
RESOLVER_TIMEOUT = 2.0

WELL_KNOWN = (Endpoint(ip_address("162.159.192.1"), 2408),)
"""Where the edge has been for years; an account names its own."""


def clock(now: float, built: float = BUILD_TIME) -> Finding:
    """Judge the time: after a handshake from the future the edge refuses all later ones."""
    text = time.strftime("the clock says %Y-%m-%d %H:%M UTC", time.gmtime(now))
    if built - 86400 <= now <= built + YEARS:
        return Finding("ok", text)
    return Finding("FAIL", text, "set it on the host (timedatectl set-ntp true)", PlatformError.exit_code)


def engine(implementation: str, *, in_kernel: bool) -> Finding:
    if implementation != "userspace" and in_kernel:
        return Finding("ok", "WireGuard: the kernel's")
    hint = "on the host: modprobe wireguard"
    if implementation == "kernel":
        return failed(
            PlatformError("this kernel has no WireGuard", f"WIREGUARD_IMPLEMENTATION=auto, or {hint}")
        )
    wish = "" if implementation == "userspace" else f"the kernel is faster: {hint}"
    return Finding("note" if wish else "ok", f"WireGuard: {ENGINE}", wish)


def surroundings(settings: Settings, snapshot: Snapshot, wildcards: frozenset[int]) -> Iterator[Finding]:
    """Judge the uplinks, IPv6, and UDP servers whose replies would leave through the tunnel."""
    host, mode = desired.on_host(settings), desired.route_mode(settings)
    found = find_uplinks(snapshot, OurIds().links | {settings.tunnel.interface}, host=host)
    place = "host network" if host else "own network"
    where = f"{place}, ROUTE_MODE={mode}, uplink {', '.join(found.links) or 'none'}"
    yield tried(where, lambda: desired.require_uplink(snapshot, found))
    if settings.routing.network == "auto":
        yield Finding("note", "NETWORK=auto is resolved on start", "set it to own or host")
    if 6 in settings.tunnel.families and 6 not in found.families:
        remedy = 'sysctls: {net.ipv6.conf.all.disable_ipv6: "0"} gives clients IPv6 through WARP'
        yield Finding("note", "no IPv6 on this server", remedy)
    for port in unlisted_ports(wildcards, settings.firewall.input_ports) if host and mode == "full" else ():
        yield Finding(
            "FAIL",
            f"the server on UDP port {port}{_service(port)} replies through WARP: it is bound to no address",
            f"FIREWALL_INPUT_PORTS={port}/udp, or ROUTE_MODE=proxy",
            SettingsError.exit_code,
        )


def _service(port: int) -> str:
    try:
        return f" ({socket.getservbyport(port, 'udp')})"
    except OSError:
        return ""


def supervisor(status: Mapping[str, Any]) -> Finding:
    """Judge the status of the running supervisor; an empty one means that none is running."""
    if not status:
        return Finding("note", "ss-warp is not running here")
    health, cause = status["health"], status["cause"]
    if health == "connected":
        exits = ", ".join(str(one) for one in status["exit"].values() if one)
        return Finding("ok", f"connected: warp={status['warp']} from {exits}")
    text = f"{health}: {cause['sentence'] if cause else status['reason']}"
    if status["healthy"]:
        return Finding("note", text)
    # Without a known cause no remedy: another cause's would mislead the reader.
    return Finding("FAIL", text, cause["remedy"] if cause else "", UnhealableError.exit_code)


def kill_switch(settings: Settings, *, loaded: bool, running: bool) -> Finding:
    """Judge the firewall: FIREWALL=off is never healthy, and a running supervisor has it loaded."""
    if not settings.firewall.on:
        text = "kill switch: off (FIREWALL=off): traffic leaves unencrypted whenever the tunnel is down"
        return Finding("note", text, "remove FIREWALL=off")
    if loaded:
        return Finding("ok", "kill switch: loaded")
    if running:
        text = "kill switch: not loaded although ss-warp is running"
        return Finding("FAIL", text, "docker compose up -d --force-recreate", PlatformError.exit_code)
    return Finding("ok", "kill switch: not loaded while ss-warp is not running")


def openings(settings: Settings) -> Iterator[Finding]:
    """Name everything that is set to bypass the tunnel."""
    if family := settings.tunnel.direct:
        text = f"IPv{family} bypasses the tunnel: sites see this server's own address"
        yield Finding("note", text, f"DIRECT_IP_VERSION={family}")
    if subnets := settings.firewall.outbound_subnets:
        yield Finding("note", f"reached outside the tunnel: {', '.join(map(str, subnets))}")


async def direct(settings: Settings, world: World, device: str) -> Finding:
    """Send a DNS query by an uplink, past the tunnel: the kill switch must reject it."""
    families = {settings.tunnel.direct}
    server = next(one for one in settings.dns.addresses if one.version not in families)
    try:
        await world.http.ask(server, QUERY_NAME, Bound(device), limit=KNOCK_TIMEOUT)
    except TimeoutError:
        return Finding("ok", f"a direct packet by {device} got no answer")
    except OSError as error:
        return Finding("ok", f"a direct packet by {device} was rejected: {error.strerror or error}")
    text = f"a direct packet by {device} was answered: traffic can bypass the tunnel"
    return Finding(
        "FAIL", text, "please report it with the output of nft list ruleset", DefectError.exit_code
    )


async def resolvers(settings: Settings, world: World, way: Marked | Bound) -> AsyncIterator[Finding]:
    """Query each of DNS_ADDRESSES that the tunnel carries, along this path."""
    by = "through the tunnel" if isinstance(way, Bound) else "outside the tunnel"
    for server in settings.dns.addresses:
        if server.version in settings.tunnel.families:
            try:
                await world.http.ask(server, QUERY_NAME, way, limit=RESOLVER_TIMEOUT)
            except OSError as error:
                why = error.strerror or str(error) or "timed out"
                yield Finding(
                    "note", f"resolver {server} does not answer {by} ({why})", "set other DNS_ADDRESSES"
                )
            else:
                yield Finding("ok", f"resolver {server} answers {by}")


async def outside(settings: Settings, world: World, uplinks: Uplinks, endpoint: Endpoint) -> Finding:
    """Look outside the tunnel, as the supervisor does in an outage; the firewall must be open."""

    @asynccontextmanager
    async def hole(destinations: Iterable[Destination]) -> AsyncIterator[None]:
        yield

    seen = await look_outside(settings, world, hole, uplinks, endpoint, web=True)
    evidence = Evidence(seen, offset=seen.offset)
    if found := diagnose(evidence, strict_clock=desired.needs_exact_clock(settings)):
        return Finding("FAIL", found.sentence, found.remedy, UnhealableError.exit_code)
    return Finding("ok", f"UDP to {endpoint} is sent and not rejected")


async def report(settings: Settings, world: World, status: Mapping[str, Any], before: bool = False) -> int:
    """Print each finding; return the exit code of the first failure, 0 without any."""
    code = 0
    async for finding in examine(settings, world, status, before):
        print(finding, flush=True)
        # Causes come first, so the first failure decides.
        code = code or finding.code
    return code


async def examine(
    settings: Settings, world: World, status: Mapping[str, Any], before: bool = False
) -> AsyncIterator[Finding]:
    """Yield every finding, causes before what they cause; `before` the first start some more."""
    capabilities, release = preflight.read_privileges()
    able = tried(
        f"capabilities and kernel ({release}) are sufficient",
        lambda: preflight.check_privileges(capabilities, release),
    )
    # Causes come before what they cause: without NET_ADMIN the rest would only repeat it.
    yield able
    yield clock(world.clock.wall())
    if able.code:
        return
    in_kernel = await kernel_has_wireguard(world.netlink)
    yield engine(settings.tunnel.implementation, in_kernel=in_kernel)
    if settings.tunnel.implementation == "userspace" or not in_kernel:
        yield tried("/dev/net/tun opens", preflight.require_tun)
    finding, held = volume(settings.account.state_dir)
    if before:
        async for one in look_before(settings, world):
            yield one
    else:
        yield finding
    snapshot = await world.netlink.snapshot()
    uplinks = find_uplinks(snapshot, OurIds().links, host=desired.on_host(settings))
    for finding in surroundings(settings, snapshot, read_wildcards()):
        yield finding
    try:
        closed = bool(await world.nft.listing("inet", "ss_warp"))
        if not before:
            yield kill_switch(settings, loaded=closed, running=held)
    except OSError as error:
        yield failed(PlatformError(f"nftables: {error}", "the kernel needs nf_tables"))
        return
    for finding in openings(settings):
        yield finding
    status = status if held else {}
    if not before:
        yield supervisor(status)
    own = not desired.on_host(settings) and desired.route_mode(settings) == "full"
    if closed and held and own and settings.firewall.on:
        for device in uplinks.links[:1]:
            yield await direct(settings, world, device)
    # Outside the tunnel only while no firewall is closed: the doctor must not need a hole.
    if status.get("state") in USABLE:
        async for finding in resolvers(settings, world, Bound(settings.tunnel.interface)):
            yield finding
    elif not closed:
        if before:
            yield await look_up(settings, world)
        async for finding in resolvers(settings, world, Marked(MARK.value)):
            yield finding
        for endpoint in endpoints(settings, snapshot) or (WELL_KNOWN if before else ()):
            yield await outside(settings, world, uplinks, endpoint)


def endpoints(settings: Settings, snapshot: Snapshot) -> Sequence[Endpoint]:
    """Return the first endpoint of each family that this machine has, from settings or account."""
    named: Sequence[Endpoint | NamedEndpoint] = settings.tunnel.endpoints
    with suppress(StateError):  # no account yet
        named = named or read(settings.account.state_dir / ACCOUNT_FILE).account.endpoints
    families = {one.version for one in find_uplinks(snapshot, OurIds().links).addresses}
    literal = [one for one in named if isinstance(one, Endpoint) and one.address.version in families]
    return [*{one.address.version: one for one in reversed(literal)}.values()]


def volume(directory: Path) -> tuple[Finding, bool]:
    """Judge the state directory; the second value tells whether a supervisor is using it."""
    try:
        kept = f"{read(directory / ACCOUNT_FILE).account.kind} account saved"
    except StateError:
        kept = "no usable account yet"
    good = Finding("ok", f"state in {directory}: {kept}")
    if exists(directory) and not os.access(directory, os.W_OK):
        good = Finding(
            "note", f"{good.text}; the volume is read-only", "changes are not saved: mount it writable"
        )
    try:
        with state_dir.lock(directory):
            return good, False
    except state_dir.HeldError:
        return good, True
    except Error as error:
        return failed(error), False


def unlisted_ports(wildcards: Iterable[int], named: Iterable[Ports]) -> list[int]:
    """Return the wildcard ports that are in no range of `named`; DHCP has a rule of its own."""
    spans = [(ports.first, ports.last) for ports in named if ports.transport == "udp"]
    clients = {client for client, _ in DHCP_PORTS.values()}
    return [
        port
        for port in sorted({*wildcards} - clients)
        if not any(first <= port <= last for first, last in spans)
    ]
