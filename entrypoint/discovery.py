"""Look up endpoints and the public address outside the tunnel: marked sockets, holes in the firewall."""

import logging
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, suppress

import anyio

from entrypoint.account.model import Account
from entrypoint.account.store import cache_addresses, cached_addresses
from entrypoint.addresses import (
    MARK,
    Address,
    Destination,
    Endpoint,
    Family,
    NamedEndpoint,
    literal,
    word_for,
)
from entrypoint.client_details import save_public_address, saved_public_address
from entrypoint.firewall.killswitch import KillSwitch
from entrypoint.health.diagnosis import Outside, unresolvable
from entrypoint.health.probe import CertificateError, Trace, fetch_trace
from entrypoint.linux.http import url_site
from entrypoint.linux.state_dir import ADDRESS_CACHE_FILE
from entrypoint.linux.world import Marked, World
from entrypoint.retry import after, retrying
from entrypoint.routing.uplinks import Uplinks
from entrypoint.settings import Settings
from entrypoint.status.board import Run

LOOKUP_PAUSE = 10.0
"""Seconds at most between attempts to resolve the endpoints' names."""

DETECT_TIMEOUT = 3.0
"""Seconds that the first run spends on detecting its public address."""

LOOK_TIMEOUT = 2.0
"""Seconds that a resolver gets to answer outside the tunnel during an outage."""

KNOCK_TIMEOUT = 0.3
"""Seconds in which a router on the way would have rejected a datagram."""

OUTSIDE_NAME = "api.cloudflareclient.com"
"""The name asked outside the tunnel: one that the server would ask for anyway."""

OUTSIDE = Marked(MARK.value)

log = logging.getLogger("ss-warp")


async def resolve_endpoints(
    run: Run, switch: KillSwitch, account: Account, uplinks: Uplinks
) -> tuple[Endpoint, ...]:
    """Return the endpoints to try, in order; retry their names until one resolves.

    The account's own name is only needed if the account came without an address.
    """
    configured = run.settings.tunnel.endpoints or ()
    families: set[Family] = {address.version for address in uplinks.addresses}
    named = account.endpoints_to_try(configured, families)

    failures, names = 0, ", ".join(dict.fromkeys(str(one) for one in named))

    async def announce(error: BaseException, pause: float) -> None:
        nonlocal failures
        failures += 1
        if await _is_answered(run.settings, run.world, switch.hole, run.settings.dns.addresses):
            said = f"{error}: check WARP_ENDPOINTS"
        else:
            cause = unresolvable(names)
            run.board.show_cause(cause)
            said = str(cause)
        if not failures & (failures - 1):  # at growing distances: a line each ten seconds says no more
            log.warning("%s; retrying every %.0f s", said, LOOKUP_PAUSE)

    async for attempt in retrying(
        run.world.clock.sleep,
        first=LOOKUP_PAUSE,
        longest=LOOKUP_PAUSE,
        demanded=after(LookupError),
        before_pause=announce,
    ):
        with attempt:
            endpoints = tuple(one for one in named if isinstance(one, Endpoint))
            # The account's addresses need no lookup. Names that the user configured always get one.
            if not endpoints or configured:
                endpoints = await _resolve_all(run, switch, named, families, configured=bool(configured))
            if not endpoints:
                raise LookupError(f"cannot resolve any endpoint ({names})")
    if failures:
        run.board.show_cause(None)
    return endpoints


async def _resolve_all(
    run: Run,
    switch: KillSwitch,
    named: tuple[Endpoint | NamedEndpoint, ...],
    families: set[Family],
    *,
    configured: bool,
) -> tuple[Endpoint, ...]:
    endpoints: dict[Endpoint, None] = {}
    found: dict[str, tuple[Address, ...]] = {}
    for one in named:
        if isinstance(one, Endpoint):
            endpoints[one] = None
            continue
        if one.name not in found:  # once for all its ports
            found[one.name] = await _look_up(run, switch, one.name)
        for address in found[one.name]:
            # A forged answer must not lead WireGuard's packets to us or our neighbours; who names an
            # endpoint in the settings may want just that.
            if address.version in families and (configured or not word_for(address)):
                endpoints[Endpoint(address, one.port)] = None
    return tuple(endpoints)


async def _look_up(run: Run, switch: KillSwitch, name: str) -> tuple[Address, ...]:
    """Resolve `name`; if no server answers, return its last known addresses."""
    servers, cache = run.settings.dns.addresses, run.state_file(ADDRESS_CACHE_FILE)
    # Docker's resolver would send unmarked, from this namespace, and the firewall could not tell it from a
    # sidecar's query. So names are resolved here, on marked sockets, through holes.
    async with switch.hole(Destination(one, 53, kind) for one in servers for kind in ("udp", "tcp")):
        try:
            found = await run.world.http.lookup(name, servers, OUTSIDE)
        except OSError as error:
            found = cached_addresses(cache, name)
            log.debug("%s%s", error, "; using its last known address" if found else "")
            return found
        cache_addresses(cache, name, found)
        return found


type Hole = Callable[[Iterable[Destination]], AbstractAsyncContextManager[None]]
"""Lets marked packets to these destinations out while its block runs."""


async def look_outside(
    settings: Settings, world: World, hole: Hole, uplinks: Uplinks, endpoint: Endpoint, *, web: bool
) -> Outside:
    """Find out what this machine reaches without the tunnel: DNS, and with `web` or without DNS, HTTPS.

    The firewall lets marked packets to `endpoint` out.
    """
    if not uplinks.addresses:
        return Outside(uplink=False)
    rejected = ""
    try:
        await world.http.knock(endpoint, OUTSIDE, limit=KNOCK_TIMEOUT)
    except OSError as error:
        rejected = f"UDP to {endpoint} is rejected: {error.strerror or error}"
    families = {address.version for address in uplinks.addresses}
    servers = [one for one in settings.dns.addresses if one.version in families]
    udp = await _is_answered(settings, world, hole, servers)
    if udp and not web:
        return Outside(udp=True, rejected=rejected)
    match await _trace_outside(settings, world, hole, families):
        case Trace(at=at):
            offset = None if at is None else at - world.clock.wall()
            return Outside(udp=udp, web=True, rejected=rejected, offset=offset)
        case CertificateError(misdated=misdated) as refused:
            return Outside(udp=udp, web=True, rejected=rejected, misdated=str(refused) if misdated else "")
        case None:
            # Without any answer it is the way out that is missing, not UDP alone.
            return Outside(udp=udp, web=False, rejected=rejected if udp else "")


async def _is_answered(settings: Settings, world: World, hole: Hole, servers: Sequence[Address]) -> bool:
    """Return whether any of the resolvers answers over UDP."""
    answered = False

    async def ask(server: Address) -> None:
        nonlocal answered
        with suppress(OSError):
            await world.http.ask(server, OUTSIDE_NAME, OUTSIDE, limit=LOOK_TIMEOUT)
            answered = True
            tasks.cancel_scope.cancel()

    try:
        async with hole(Destination(one, 53, "udp") for one in servers), anyio.create_task_group() as tasks:
            for server in servers:
                tasks.start_soon(ask, server)
    except OSError as error:
        log.debug("cannot look outside the tunnel: %s", error)
    return answered


async def resolve_again(
    run: Run, switch: KillSwitch, account: Account, uplinks: Uplinks, *, answered: bool
) -> tuple[tuple[Endpoint, ...], str]:
    """Return what the endpoints' names resolve to now, and those names if there is nothing else to try.

    Without a resolver that has `answered` a moment ago none is queried: each would cost seconds.
    """
    families: set[Family] = {address.version for address in uplinks.addresses}
    named = account.endpoints_to_try(run.settings.tunnel.endpoints or (), families)
    names = tuple(one for one in named if isinstance(one, NamedEndpoint))
    configured = bool(run.settings.tunnel.endpoints)
    found = await _resolve_all(run, switch, names, families, configured=configured) if answered else ()
    if found or len(names) < len(named):
        return found, ""
    return (), ", ".join(dict.fromkeys(one.name for one in names))


async def choose_public_host(
    run: Run, switch: KillSwitch, uplinks: Uplinks, *, detect: bool
) -> Address | str | None:
    """Return the host that clients connect to: as set, detected, or a public address of an uplink.

    None if it is unknown: a container's own private address is no use to clients. To `detect` it, a
    request is sent outside the tunnel.
    """
    if run.settings.shadowsocks.public_host:
        return run.settings.shadowsocks.public_host
    saved = saved_public_address(run.settings)
    if detect and not saved and (saved := await _detect_public_address(run, switch)):
        save_public_address(run.settings, saved)
    public = (address for address in uplinks.listening if not word_for(address))
    return saved or next(public, None)


async def _detect_public_address(run: Run, switch: KillSwitch) -> Address | None:
    seen = await _trace_outside(run.settings, run.world, switch.hole, {4, 6})
    return seen.ip if isinstance(seen, Trace) else None


async def _trace_outside(
    settings: Settings, world: World, hole: Hole, families: Collection[Family]
) -> Trace | CertificateError | None:
    """Return the first trace that a page at a literal address answers outside the tunnel."""
    refused: CertificateError | None = None
    for url in settings.health.trace_urls:
        host, port = url_site(url)
        address = literal(host)
        if address is None or address.version not in families:
            continue
        async with hole([Destination(address, port, "tcp")]):
            try:
                ca_file = settings.health.ca_file
                seen = await fetch_trace(world.http, url, OUTSIDE, ca_file, (), limit=DETECT_TIMEOUT)
                if seen.ip:
                    return seen
            except CertificateError as error:
                refused = error
            except OSError:
                continue
    return refused
