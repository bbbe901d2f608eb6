"""What is looked up outside the tunnel, before it is up: by marked sockets, through holes in the firewall."""

import logging
from typing import Final

from entrypoint.account.model import Account
from entrypoint.account.store import cache_addresses, cached_addresses
from entrypoint.addresses import MARK, Address, Destination, Endpoint, Family, NamedEndpoint, word_for
from entrypoint.client_details import save_public_address, saved_public_address
from entrypoint.firewall.killswitch import KillSwitch
from entrypoint.health.probe import fetch_trace, literal, url_site
from entrypoint.linux.state_dir import ADDRESS_CACHE_FILE
from entrypoint.linux.world import Marked
from entrypoint.retry import after, retrying
from entrypoint.routing.uplinks import Uplinks
from entrypoint.status.board import Run

LOOKUP_PAUSE: Final = 10.0
"""Seconds at most until endpoints' names are looked up again."""

DETECT_TIMEOUT: Final = 3.0
"""Seconds that the first run spends on finding its own public address."""

OUTSIDE: Final = Marked(MARK.value)

log = logging.getLogger("ss-warp")


async def resolve_endpoints(
    run: Run, switch: KillSwitch, account: Account, uplinks: Uplinks
) -> tuple[Endpoint, ...]:
    """Return the endpoints to try, in this order; names are looked up for as long as that takes.

    The account's own name is only needed when it came without an address.
    """
    configured = run.settings.tunnel.endpoints or ()
    families: set[Family] = {address.version for address in uplinks.addresses}
    named = account.endpoints_to_try(configured, families)

    def announce(error: BaseException, pause: float) -> None:
        log.warning("%s, retrying in %.0f s", error, pause)

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
) -> tuple[Endpoint, ...]:
    endpoints: dict[Endpoint, None] = {}
    for one in named:
        if isinstance(one, Endpoint):
            endpoints[one] = None
            continue
        for address in await _look_up(run, switch, one.name):
            # A forged answer must not lead WireGuard's packets to us or our neighbours; who names an
            # endpoint in the settings may want just that.
            if address.version in families and (configured or not word_for(address)):
                endpoints[Endpoint(address, one.port)] = None
    return tuple(endpoints)


async def _look_up(run: Run, switch: KillSwitch, name: str) -> tuple[Address, ...]:
    """Resolve `name`; when no server answers, return what it resolved to the last time."""
    servers, cache = run.settings.dns.addresses, run.state_file(ADDRESS_CACHE_FILE)
    # Docker's resolver would send unmarked, from this namespace, and the firewall could not tell it from a
    # sidecar's query. So names are resolved here, on marked sockets, through holes.
    async with switch.hole(Destination(one, 53, kind) for one in servers for kind in ("udp", "tcp")):
        try:
            found = await run.world.http.lookup(name, servers, OUTSIDE)
        except OSError as error:
            found = cached_addresses(cache, name)
            log.warning("%s%s", error, "; using its last known address" if found else "")
            return found
        cache_addresses(cache, name, found)
        return found


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
    for url in run.settings.health.trace_urls:
        host, port = url_site(url)
        if not (address := literal(host)):
            continue
        async with switch.hole([Destination(address, port, "tcp")]):
            try:
                ca_file = run.settings.health.ca_file
                seen = await fetch_trace(run.world.http, url, OUTSIDE, ca_file, (), limit=DETECT_TIMEOUT)
            except OSError:
                continue
        if seen.ip:
            return seen.ip
    return None
