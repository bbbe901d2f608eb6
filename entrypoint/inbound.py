"""The Shadowsocks server: its secrets on the volume, its process, and what it says."""

import logging
from collections.abc import Callable
from dataclasses import dataclass

import anyio
from anyio.abc import TaskStatus

from entrypoint import files
from entrypoint.children import supervise
from entrypoint.errors import StateError
from entrypoint.log import hide
from entrypoint.network.killswitch import SSSERVER
from entrypoint.ports import Program, World
from entrypoint.pulse import PATIENCE, hung
from entrypoint.settings import Settings
from entrypoint.status import Board
from entrypoint.surroundings import Surroundings
from entrypoint.wanted import Tunnelled
from shadowsocks.lines import Listening, digest, listening
from shadowsocks.server import ARGV, ENVIRONMENT, Inbound, acl, server_config
from shadowsocks.users import Credentials, Kept, credentials

FILE = "shadowsocks.json"

log = logging.getLogger("ss-warp")


@dataclass(frozen=True, slots=True)
class Secrets:
    """What clients need; `new`: nothing was kept before, this is the first run."""

    credentials: Credentials
    new: bool


def load_or_generate(settings: Settings) -> Secrets:
    """Return method, password and users; what had to be generated is kept first.

    Raises StateError when shadowsocks.json is not ours, BusyError when the disk is full.
    """
    kept = kept_secrets(settings)
    filled, now = filled_in(settings, kept or Kept())
    if now != kept:
        files.replace(settings.account.state_dir / FILE, now.to_json())
    hide(filled.password, *(user.key for user in filled.users))
    return Secrets(filled, new=kept is None)


def kept_secrets(settings: Settings) -> Kept | None:
    """Return what shadowsocks.json keeps, None when there is none. Raises StateError."""
    path = settings.account.state_dir / FILE
    content = files.read(path)
    try:
        return Kept.from_json(content) if content is not None else None
    except ValueError as error:
        raise StateError(f"{path}: {error}", "restore it from a backup, or delete it for new keys") from error


def filled_in(settings: Settings, kept: Kept) -> tuple[Credentials, Kept]:
    """Return what clients need, and what is to be kept of it."""
    wanted = settings.shadowsocks
    password = wanted.password.get_secret_value() if wanted.password else None
    return credentials(wanted.method, password, wanted.users, kept)


async def serve(
    tunnelled: Tunnelled,
    secrets: Secrets,
    surroundings: Surroundings,
    world: World,
    board: Board,
    *,
    task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
) -> None:
    """Keep ssserver running on the uplinks' addresses, for ever.

    It is started anew for a new address or device, and when it hangs.
    Reports as started when everything listens for the first time.
    """
    settings = tunnelled.settings.shadowsocks
    started = False

    def first() -> None:
        nonlocal started
        if not started:
            started = True
            task_status.started()

    while True:
        await surroundings.changed(lambda: bool(surroundings.uplinks.listening))
        addresses, remade = surroundings.uplinks.listening, surroundings.remade
        inbound = Inbound(addresses, settings.port, secrets.credentials, settings.udp)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(
                _listen, tasks.cancel_scope, inbound, tunnelled, surroundings, world, board, first
            )
            await surroundings.outdated(addresses, remade)
            tasks.cancel_scope.cancel()


async def _listen(
    life: anyio.CancelScope,
    inbound: Inbound,
    tunnelled: Tunnelled,
    surroundings: Surroundings,
    world: World,
    board: Board,
    ready: Callable[[], None],
) -> None:
    """Keep ssserver running; end this `life` of it when it hangs."""
    up: set[Listening] = set()
    said = 0
    expected = len(inbound.addresses) * (2 if inbound.udp else 1)
    names = tuple(user.name for user in inbound.credentials.users)
    own = (*surroundings.uplinks.addresses, *(one.ip for one in tunnelled.account.addresses))

    def tell(serves: bool) -> None:
        board.serving(str(inbound.credentials.method), names, up if serves else ())

    def on_line(line: str) -> bool:
        nonlocal said
        said += 1
        if worth := digest(line):
            log.log(logging.getLevelNamesMapping()[worth[0].upper()], "ssserver: %s", worth[1])
        if new := listening(line):
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
        there = [address for address in inbound.addresses if address in surroundings.uplinks.listening]
        if not there or len(up) < expected:
            return None
        return await world.processes.answers(there[0], inbound.port, limit=PATIENCE)

    program = Program(
        name="ssserver",
        argv=ARGV,
        environment=ENVIRONMENT,
        uid=SSSERVER,
        files={
            "config": server_config(
                inbound, device=tunnelled.outbound_device, dns=tunnelled.probe(surroundings.uplinks).dns
            ),
            "acl": acl(own, tunnelled.settings.shadowsocks.allowed_cidrs),
        },
    )

    async def watch() -> None:
        await hung(ask, lambda: said, tell, world.clock, tunnelled.settings.health.interval)
        life.cancel()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch)
        await supervise(world.processes, program, world.clock, on_line=on_line, on_end=on_end)
