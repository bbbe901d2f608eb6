"""Look up endpoints and the public address outside the tunnel: marked sockets, holes in the firewall."""

import logging
from collections.abc import Collection, Sequence
from contextlib import suppress
from typing import Final

import anyio

from entrypoint.account.model import Account
from entrypoint.account.store import cache_addresses, cached_addresses
from entrypoint.addresses import MARK, Address, Destination, Endpoint, Family, NamedEndpoint, word_for
from entrypoint.client_details import save_public_address, saved_public_address
from entrypoint.firewall.killswitch import KillSwitch
from entrypoint.health.diagnosis import Cause, Outside
from entrypoint.health.probe import Trace, fetch_trace, literal
from entrypoint.linux.http import url_site
from entrypoint.linux.state_dir import ADDRESS_CACHE_FILE
from entrypoint.linux.world import Marked
from entrypoint.retry import after, retrying
from entrypoint.routing.uplinks import Uplinks
from entrypoint.status.board import Run

LOOKUP_PAUSE: Final = 10.0
"""Seconds at most between attempts to resolve the endpoints' names."""

DETECT_TIMEOUT: Final = 3.0
"""Seconds that the first run spends on detecting its public address."""

LOOK_TIMEOUT: Final = 2.0
"""Seconds that a resolver gets to answer outside the tunnel during an outage."""

OUTSIDE_NAME: Final = "api.cloudflareclient.com"
"""The name asked outside the tunnel: one that the server would ask for anyway."""

OUTSIDE: Final = Marked(MARK.value)

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

    def announce(error: BaseException, pause: float) -> None:
        log.warning("%s, retrying in %.0f s; %s", error, pause, Cause.PROVIDER_DNS.value)

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
                raise LookupError(f"cannot resolve any endpoint ({', '.join(map(str, named))})")
    return endpoints


async def _resolve_all(
    run: Run,
    switch: KillSwitch,
    named: tuple[Endpoint | NamedEndpoint, ...],
    families: set[Family],
    *,
    configured: bool,
    level: int = logging.WARNING,
) -> tuple[Endpoint, ...]:
    endpoints: dict[Endpoint, None] = {}
    for one in named:
        if isinstance(one, Endpoint):
            endpoints[one] = None
            continue
        for address in await _look_up(run, switch, one.name, level):
            # A forged answer must not lead WireGuard's packets to us or our neighbours; who names an
            # endpoint in the settings may want just that.
            if address.version in families and (configured or not word_for(address)):
                endpoints[Endpoint(address, one.port)] = None
    return tuple(endpoints)


async def _look_up(run: Run, switch: KillSwitch, name: str, level: int) -> tuple[Address, ...]:
    """Resolve `name`; if no server answers, return its last known addresses."""
    servers, cache = run.settings.dns.addresses, run.state_file(ADDRESS_CACHE_FILE)
    # Docker's resolver would send unmarked, from this namespace, and the firewall could not tell it from a
    # sidecar's query. So names are resolved here, on marked sockets, through holes.
    async with switch.hole(Destination(one, 53, kind) for one in servers for kind in ("udp", "tcp")):
        try:
            found = await run.world.http.lookup(name, servers, OUTSIDE)
        except OSError as error:
            found = cached_addresses(cache, name)
            log.log(level, "%s%s", error, "; using its last known address" if found else "")
            return found
        cache_addresses(cache, name, found)
        return found


async def look_outside(
    run: Run, switch: KillSwitch, uplinks: Uplinks, endpoint: Endpoint, *, web: bool
) -> Outside:
    """Find out what this machine reaches without the tunnel: DNS, and with `web` or without DNS, HTTPS."""
    if not uplinks.addresses:
        return Outside(uplink=False)
    families = {address.version for address in uplinks.addresses}
    servers = [one for one in run.settings.dns.addresses if one.version in families]
    udp = await _is_answered(run, switch, servers)
    if udp and not web:
        return Outside(udp=True)
    seen = await _trace_outside(run, switch, families)
    offset = seen.at - run.world.clock.wall() if seen and seen.at is not None else None
    return Outside(udp=udp, web=seen is not None, offset=offset)


async def _is_answered(run: Run, switch: KillSwitch, servers: Sequence[Address]) -> bool:
    """Return whether any of the resolvers answers over UDP."""
    answered = False

    async def ask(server: Address) -> None:
        nonlocal answered
        with suppress(OSError):
            await run.world.http.ask(server, OUTSIDE_NAME, OUTSIDE, limit=LOOK_TIMEOUT)
            answered = True
            tasks.cancel_scope.cancel()

    try:
        async with (
            switch.hole(Destination(one, 53, "udp") for one in servers),
            anyio.create_task_group() as tasks,
        ):
            for server in servers:
                tasks.start_soon(ask, server)
    except OSError as error:
        log.debug("cannot look outside the tunnel: %s", error)
    return answered


async def resolve_again(
    run: Run, switch: KillSwitch, account: Account, uplinks: Uplinks
) -> tuple[Endpoint, ...]:
    """Return what the endpoints' names resolve to now; nothing without names."""
    families: set[Family] = {address.version for address in uplinks.addresses}
    named = account.endpoints_to_try(run.settings.tunnel.endpoints or (), families)
    names = tuple(one for one in named if isinstance(one, NamedEndpoint))
    configured = bool(run.settings.tunnel.endpoints)
    return await _resolve_all(run, switch, names, families, configured=configured, level=logging.DEBUG)


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
    seen = await _trace_outside(run, switch, {4, 6})
    return seen.ip if seen else None


async def _trace_outside(run: Run, switch: KillSwitch, families: Collection[Family]) -> Trace | None:
    """Return the first trace that a page at a literal address answers outside the tunnel."""
    for url in run.settings.health.trace_urls:
        host, port = url_site(url)
        address = literal(host)
        if address is None or address.version not in families:
            continue
        async with switch.hole([Destination(address, port, "tcp")]):
            with suppress(OSError):
                ca_file = run.settings.health.ca_file
                seen = await fetch_trace(run.world.http, url, OUTSIDE, ca_file, (), limit=DETECT_TIMEOUT)
                if seen.ip:
                    return seen
    return None
