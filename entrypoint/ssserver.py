"""The Shadowsocks server: its process, what it prints, and whether it still answers."""

import logging
from collections.abc import Awaitable, Callable

import anyio
from anyio.abc import TaskStatus

from entrypoint.addresses import Network
from entrypoint.client_details import ClientSecrets
from entrypoint.desired import DesiredState, on_host
from entrypoint.linux.kernel_objects import SSSERVER_UID
from entrypoint.linux.processes import supervise
from entrypoint.linux.world import Clock, Program
from entrypoint.network_watch import NetworkWatch
from entrypoint.routing.uplinks import Uplinks
from entrypoint.status.board import Run
from shadowsocks.server import (
    ARGV,
    ENVIRONMENT,
    Inbound,
    Listening,
    acl,
    parse_listening,
    server_config,
    summarize_line,
)

log = logging.getLogger("ss-warp")


async def keep_running(
    run: Run,
    state: DesiredState,
    secrets: ClientSecrets,
    watch: NetworkWatch,
    *,
    task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
) -> None:
    """Keep ssserver running on the uplinks' addresses.

    Restart it for a new address or device, and when it hangs.
    Reports as started when everything listens for the first time.
    """
    settings = run.settings.shadowsocks
    if not on_host(run.settings):
        for sentence in doubts_about_clients(settings.allowed_cidrs, watch.uplinks):
            log.warning("%s", sentence)
    started = False

    def first() -> None:
        nonlocal started
        if not started:
            started = True
            task_status.started()

    while True:
        await watch.changed(lambda: bool(watch.uplinks.listening))
        addresses, generation = watch.uplinks.listening, watch.device_generation
        inbound = Inbound(addresses, settings.port, secrets.credentials, settings.udp)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_run_once, tasks.cancel_scope, inbound, run, state, watch, first)
            await watch.outdated(addresses, generation)
            tasks.cancel_scope.cancel()


def doubts_about_clients(allowed: tuple[Network, ...], uplinks: Uplinks) -> list[str]:
    """Return what SHADOWSOCKS_ALLOWED_CIDRS cannot do in a container's network.

    IPv6 clients of a network without IPv6, and all clients of rootless Docker, arrive with the address
    of Docker's gateway.
    """
    doubts = []
    unseen = [str(one) for one in allowed if one.version == 6]
    if unseen and not any(address.version == 6 for address in uplinks.listening):
        doubts.append(
            f"{', '.join(unseen)} in SHADOWSOCKS_ALLOWED_CIDRS admits no client: this network has no IPv6, "
            "so IPv6 clients arrive as Docker's gateway (use compose.ipv6.yaml, see docs/install.md)"
        )
    gateways = dict.fromkeys(route.gateway for route in uplinks.defaults if route.gateway)
    doubts += [
        f"{one} in SHADOWSOCKS_ALLOWED_CIDRS includes {gateway}, Docker's gateway, so it admits every client "
        "that Docker's proxy forwards"
        for gateway in gateways
        for one in allowed
        if gateway in one and one.prefixlen
    ]
    return doubts


async def _run_once(
    life: anyio.CancelScope,
    inbound: Inbound,
    run: Run,
    state: DesiredState,
    watch: NetworkWatch,
    ready: Callable[[], None],
) -> None:
    """Keep ssserver running; end this `life` of it when it hangs."""
    up: set[Listening] = set()
    said = 0
    expected = len(inbound.addresses) * (2 if inbound.udp else 1)
    names = tuple(user.name for user in inbound.credentials.users)
    own = (*watch.uplinks.addresses, *(one.ip for one in state.account.addresses))

    def tell(serves: bool) -> None:
        run.board.serving(str(inbound.credentials.method), names, up if serves else ())

    def on_line(line: str) -> bool:
        nonlocal said
        said += 1
        if worth := summarize_line(line):
            log.log(logging.getLevelNamesMapping()[worth[0].upper()], "ssserver: %s", worth[1])
        if new := parse_listening(line):
            up.add(new)
            if len(up) == expected:
                tell(True)
                log.info("Shadowsocks listens on %s", ", ".join(sorted(map(str, up))))
                ready()
        return len(up) == expected

    async def on_end(sentence: str) -> None:
        up.clear()
        tell(False)
        log.warning("%s", sentence)

    async def ask() -> bool | None:
        there = [address for address in inbound.addresses if address in watch.uplinks.listening]
        if not there or len(up) < expected:
            return None
        return await run.world.processes.is_responsive(there[0], inbound.port, limit=REACTION_TIMEOUT)

    program = Program(
        name="ssserver",
        argv=ARGV,
        environment=ENVIRONMENT,
        uid=SSSERVER_UID,
        files={
            "config": server_config(
                inbound, device=state.outbound_device, dns=state.probe(watch.uplinks).dns
            ),
            "acl": acl(own, run.settings.shadowsocks.allowed_cidrs),
        },
    )

    async def end_when_hung() -> None:
        await wait_until_hung(ask, lambda: said, tell, run.world.clock, run.settings.health.interval)
        life.cancel()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(end_when_hung)
        await supervise(run.world.processes, program, run.world.clock, on_line=on_line, on_end=on_end)


REACTION_TIMEOUT = 1.5
"""Seconds that it gets for a reaction."""

RETRY_PAUSE = 0.5
"""Seconds between two questions when one had no answer."""

MISSED = 2
"""Questions in a row without an answer after which it is said not to serve."""

HUNG = 20
"""... after which, without a line printed either, it is ended: 40 s. Who was only stopped for half a minute
goes on, and who has no file descriptor left says so, and keeps the connections that it has."""

log = logging.getLogger("ss-warp")


async def wait_until_hung(
    ask: Callable[[], Awaitable[bool | None]],
    said: Callable[[], int],
    tell: Callable[[bool], None],
    clock: Clock,
    interval: float,
) -> None:
    """Ask every `interval` seconds; return when it hangs.

    `ask` answers None when there is nobody to ask; `said` is how many lines were printed so far; `tell` is
    told whether it serves. Silence counts for nothing before the first answer: a firewall of the host's
    may be in the way.
    """
    answer: bool | None = None
    proven, missed, silent, heard = False, 0, 0, said()
    while silent < HUNG:
        await clock.sleep(RETRY_PAUSE if answer is None or missed else interval)
        answer, before, heard = await ask(), heard, said()
        match answer:
            case None:
                proven, missed, silent = False, 0, 0
            case True:
                if missed >= MISSED:
                    log.info("ssserver answers again")
                    tell(True)
                proven, missed, silent = True, 0, 0
            case False if proven:
                missed += 1
                silent = silent + 1 if heard == before else 0
                if missed == MISSED:
                    log.warning("ssserver does not answer")
                    tell(False)
    log.warning("ssserver hangs: starting it again")
