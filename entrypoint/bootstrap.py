"""What is asked outside the tunnel, before there is one: by marked sockets, through holes made for them."""

import logging
from ipaddress import IPv4Address
from typing import Final

from entrypoint import files
from entrypoint.accounts import MEMORY
from entrypoint.health.checks import literal, site, trace
from entrypoint.network.firewall import KillSwitch
from entrypoint.network.plan import MARK, Address, Destination, Family
from entrypoint.network.uplinks import Uplinks
from entrypoint.ports import Marked, World
from entrypoint.settings import Settings
from entrypoint.warp.account import Account
from entrypoint.warp.endpoints import Endpoint, NamedEndpoint, candidates
from entrypoint.warp.memory import recall, remember

PUBLIC_ADDRESS: Final = "public-address"
"""The file that keeps which address the world saw at the first run."""

AGAIN: Final = 10.0
"""Seconds until endpoints' names are looked up again."""

DETECT_LIMIT: Final = 3.0
"""Seconds that the first run spends on finding its own public address."""

OUTSIDE: Final = Marked(MARK.value)

log = logging.getLogger("ss-warp")


async def reachable(
    settings: Settings, world: World, switch: KillSwitch, account: Account, found: Uplinks
) -> tuple[Endpoint, ...]:
    """Return the endpoints to try, in this order; names are looked up, for as long as that takes.

    The account's own name is only needed when it brought no address.
    """
    families: set[Family] = {address.version for address in found.addresses}
    named = candidates(account, settings.tunnel.endpoints or (), families)
    while True:
        known = tuple(one for one in named if isinstance(one, Endpoint))
        if not known or settings.tunnel.endpoints:
            known = await _resolved(named, families, settings, world, switch)
        if known:
            return known
        log.warning("no address for any endpoint (%s): next try in %.0f s", ", ".join(map(str, named)), AGAIN)
        await world.clock.sleep(AGAIN)


async def _resolved(
    named: tuple[Endpoint | NamedEndpoint, ...],
    families: set[Family],
    settings: Settings,
    world: World,
    switch: KillSwitch,
) -> tuple[Endpoint, ...]:
    known: dict[Endpoint, None] = {}
    for one in named:
        if isinstance(one, Endpoint):
            known[one] = None
            continue
        for address in await _lookup(one.name, settings, world, switch):
            if address.version in families:
                known[Endpoint(address, one.port)] = None
    return tuple(known)


async def _lookup(name: str, settings: Settings, world: World, switch: KillSwitch) -> tuple[Address, ...]:
    servers = settings.dns.addresses
    async with switch.hole(Destination(one, 53, kind) for one in servers for kind in ("udp", "tcp")):
        try:
            found = await world.http.lookup(name, servers, OUTSIDE)
        except OSError as error:
            found = recall(settings.account.state_dir / MEMORY, name)
            log.warning("%s%s", error, ": it is tried where it was the last time" if found else "")
            return found
        remember(settings.account.state_dir / MEMORY, name, found)
        return found


async def public_host(
    settings: Settings, world: World, switch: KillSwitch, found: Uplinks, *, first: bool
) -> Address | str:
    """Return the host that clients connect to: as set, as found by the first run, else an uplink's address.

    Only the `first` run asks, outside the tunnel, which address the world sees.
    """
    if settings.shadowsocks.public_host:
        return settings.shadowsocks.public_host
    if first and (seen := await _seen_from_outside(settings, world, switch)):
        files.replace(settings.account.state_dir / PUBLIC_ADDRESS, f"{seen}\n".encode())
    return kept_address(settings) or (found.listening or (IPv4Address(0),))[0]


def kept_address(settings: Settings) -> Address | None:
    """Return the public address that the first run kept."""
    content = files.read(settings.account.state_dir / PUBLIC_ADDRESS) or b""
    return literal(content.decode("ascii", "replace").strip())


async def _seen_from_outside(settings: Settings, world: World, switch: KillSwitch) -> Address | None:
    for url in settings.health.trace_urls:
        at, port = site(url)
        if not (address := literal(at)):
            continue
        async with switch.hole([Destination(address, port, "tcp")]):
            try:
                ca_file = settings.health.ca_file
                seen = await trace(world.http, url, OUTSIDE, ca_file, (), limit=DETECT_LIMIT)
            except OSError:
                continue
        if seen.ip:
            return seen.ip
    return None
