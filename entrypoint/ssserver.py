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
from shadowsocks import server

log = logging.getLogger("ss-warp")


async def keep_running(
    run: Run,
    state: DesiredState,
    secrets: ClientSecrets,
    watch: NetworkWatch,
    *,
    task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
) -> None:
    """Keep ssserver running on the uplinks' addresses; restart it for new addresses, and if it hangs.

    Reports started when every listener is up for the first time.
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
        inbound = server.Inbound(addresses, settings.port, secrets.credentials, settings.udp)
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
    inbound: server.Inbound,
    run: Run,
    state: DesiredState,
    watch: NetworkWatch,
    ready: Callable[[], None],
) -> None:
    """Keep ssserver running on these addresses; cancel `life` when it hangs."""
    up: set[server.Listening] = set()
    said = 0
    expected = len(inbound.addresses) * (2 if inbound.udp else 1)
    names = tuple(user.name for user in inbound.credentials.users)
    own = (*watch.uplinks.addresses, *(one.ip for one in state.account.addresses))

    def show(serves: bool) -> None:
        run.board.show_listeners(str(inbound.credentials.method), names, up if serves else ())

    def on_line(line: str) -> bool:
        nonlocal said
        said += 1
        if worth := server.summarize_line(line):
            log.log(logging.getLevelNamesMapping()[worth[0].upper()], "ssserver: %s", worth[1])
        if new := server.parse_listening(line):
            up.add(new)
            if len(up) == expected:
                show(True)
                log.info("Shadowsocks is listening on %s", ", ".join(sorted(map(str, up))))
                ready()
        return len(up) == expected

    async def on_end(sentence: str) -> None:
        up.clear()
        show(False)
        log.warning("%s", sentence)
        if not set(inbound.addresses) <= set(watch.uplinks.listening):
            life.cancel()  # it could not bind an address that is gone

    async def probe() -> bool | None:
        there = [address for address in inbound.addresses if address in watch.uplinks.listening]
        if not there or len(up) < expected:
            return None
        return await run.world.processes.is_responsive(there[0], inbound.port, limit=REACTION_TIMEOUT)

    program = Program(
        name="ssserver",
        argv=server.ARGV,
        environment=server.ENVIRONMENT,
        uid=SSSERVER_UID,
        files={
            "config": server.server_config(
                inbound,
                device=state.outbound_device,
                dns=state.probe(watch.uplinks).dns,
                ipv6_first=run.settings.shadowsocks.ipv6_first,
            ),
            "acl": server.acl(own, run.settings.shadowsocks.allowed_cidrs),
        },
    )

    async def end_when_hung() -> None:
        await wait_until_hung(probe, lambda: said, show, run.world.clock, run.settings.health.interval)
        life.cancel()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(end_when_hung)
        await supervise(run.world.processes, program, run.world.clock, on_line=on_line, on_end=on_end)


REACTION_TIMEOUT = 1.5
"""Seconds that ssserver gets to react to a connection."""

RETRY_PAUSE = 0.5
"""Seconds until the next probe after a failed one."""

MISSED = 2
"""Consecutive failed probes before ssserver is reported as not serving."""

HUNG = 20
"""Consecutive failed probes (40 s) before a server that also prints nothing is restarted.

One that was only paused for half a minute goes on; one out of file descriptors says so, and keeps its
connections."""

log = logging.getLogger("ss-warp")


async def wait_until_hung(
    probe: Callable[[], Awaitable[bool | None]],
    printed: Callable[[], int],
    show: Callable[[bool], None],
    clock: Clock,
    interval: float,
) -> None:
    """Probe every `interval` seconds; return when ssserver hangs.

    `probe` returns None while nothing listens; `printed` counts the lines printed so far; `show` gets whether
    it serves. Failures before the first success count for nothing: a host firewall may block the probe.
    """
    answer: bool | None = None
    proven, missed, silent, heard = False, 0, 0, printed()
    while silent < HUNG:
        await clock.sleep(RETRY_PAUSE if answer is None or missed else interval)
        answer, before, heard = await probe(), heard, printed()
        match answer:
            case None:
                proven, missed, silent = False, 0, 0
            case True:
                if missed >= MISSED:
                    log.info("ssserver reacts again")
                    show(True)
                proven, missed, silent = True, 0, 0
            case False if proven:
                missed += 1
                silent = silent + 1 if heard == before else 0
                if missed == MISSED:
                    log.warning("ssserver does not react to clients")
                    show(False)
    log.warning("ssserver hangs, restarting it")
