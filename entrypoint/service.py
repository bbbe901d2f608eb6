"""One life of the supervisor: the world, the log and the status board around the chain, and its signals."""

import logging

import anyio

from entrypoint import chain
from entrypoint.children import SystemProcesses
from entrypoint.clock import SystemClock
from entrypoint.health import server
from entrypoint.https import SystemHttp
from entrypoint.log import banner, configure
from entrypoint.network.netlink import SystemNetlink
from entrypoint.network.nft import SystemNft
from entrypoint.ports import World
from entrypoint.settings import Settings, resolved
from entrypoint.signals import STOP
from entrypoint.status import Board
from entrypoint.warp.store import known


def serve(settings: Settings) -> int:
    """Run the chain until a signal asks for its end; return 0. Raises what ended it, all undone."""
    configure(settings.logs.level, settings.logs.format)
    log = logging.getLogger("ss-warp")
    for line in banner():
        log.info(line)
    level = logging.DEBUG if known(settings.account.state_dir) else logging.INFO
    for line in resolved(settings):
        log.log(level, line)
    for line in settings.warnings:
        log.warning(line)
    world = system()
    board = Board(world.clock, interval=settings.health.interval)
    anyio.run(until_signal, settings, world, board)
    return 0


def system() -> World:
    """Return this machine's doors."""
    return World(SystemClock(), SystemHttp(), SystemNetlink(), SystemNft(), SystemProcesses())


async def until_signal(settings: Settings, world: World, board: Board) -> None:
    """Run health server and chain; return when one of STOP has come and all is undone."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_cancel_on_signal, tasks.cancel_scope, board)
        await tasks.start(server.serve, settings.health.server_address, board)
        await chain.run(settings, world, board)
        tasks.cancel_scope.cancel()


async def _cancel_on_signal(scope: anyio.CancelScope, board: Board) -> None:
    with anyio.open_signal_receiver(*STOP) as signals:
        async for _ in signals:
            board.stopping()
            scope.cancel()
