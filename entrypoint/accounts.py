"""The account in the supervisor's life: had before the tunnel, looked at behind it, given up at the end."""

import logging
import socket
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Final

import anyio

from entrypoint.errors import Error, StateError
from entrypoint.log import hide
from entrypoint.network.firewall import KillSwitch
from entrypoint.network.plan import MARK
from entrypoint.network.uplinks import Uplinks
from entrypoint.ports import World
from entrypoint.settings import Settings
from entrypoint.state import Event, State
from entrypoint.status import Board
from entrypoint.warp.api import Reach, WarpApi
from entrypoint.warp.licence import confirmed
from entrypoint.warp.life import Wishes, doubted, left, ready
from entrypoint.warp.store import FILE, Kept, known, look
from entrypoint.warp.team import PastedToken, ServiceToken, Team

MEMORY: Final = "addresses.json"
"""The file that remembers where API and edge were."""

LOOK_AGAIN: Final = 120.0
"""Seconds after connecting until a WARP+ licence is looked at: a restart loop must not ask each time."""

FAREWELL: Final = 3.0
"""Seconds that unregistering may take: the whole stop must fit in five."""

log = logging.getLogger("ss-warp")


class RenewedError(Exception):
    """Another account is kept now, or has to be registered: the chain begins anew with it."""


class Doubt:
    """Raised when the tunnel is dead and the account may be why; raising it never waits."""

    def __init__(self) -> None:
        self._raised = anyio.Event()

    def __call__(self) -> None:
        """Have the API asked."""
        self._raised.set()

    async def taken(self) -> None:
        """Wait until it is raised; then it is not any more."""
        await self._raised.wait()
        self._raised = anyio.Event()


def wishes(settings: Settings) -> Wishes:
    """Return what the settings want of the account."""
    account = settings.account
    team: Team | None = None
    if account.team_token:
        team = PastedToken(account.team_token.get_secret_value())
    elif account.org and account.auth_client_id and account.auth_client_secret:
        team = ServiceToken(
            account.org, account.auth_client_id, account.auth_client_secret.get_secret_value()
        )
    return Wishes(
        device_name=account.device_name or socket.gethostname(),
        license_key=account.license_key.get_secret_value() if account.license_key else None,
        import_file=account.import_file,
        team=team,
    )


def warp_api(settings: Settings, world: World, reach: Reach) -> WarpApi:
    """Return the API, asked outside the tunnel."""
    return WarpApi(
        http=world.http,
        clock=world.clock,
        reach=reach,
        servers=settings.dns.addresses,
        mark=MARK.value,
        base_url=settings.account.api_url,
        ca_file=settings.account.api_ca_file,
        memory=settings.account.state_dir / MEMORY,
    )


async def registered(
    settings: Settings, world: World, board: Board, switch: KillSwitch, found: Uplinks
) -> Kept:
    """Return the kept account, or register one; meanwhile the board says when the next try is."""
    wanted = wishes(settings)
    hide(wanted.license_key or "")
    match wanted.team:
        case PastedToken(jwt):
            hide(jwt)
        case ServiceToken(client_secret=secret):
            hide(secret)
    if not known(settings.account.state_dir):
        board.move(Event.ACCOUNT_MISSING)

    def waiting(reason: str, pause: float) -> None:
        if board.status.state != "registering":
            board.move(Event.ACCOUNT_MISSING)
        due = datetime.fromtimestamp(world.clock.wall() + pause, UTC)
        words = f"{reason}; next try in {pause:.0f} s, at {due:%H:%M:%S} UTC"
        board.move(Event.API_SILENT, words, logging.WARNING)

    kept = await ready(
        settings.account.state_dir,
        warp_api(settings, world, switch.hole),
        world.clock,
        own=found.addresses,
        wishes=wanted,
        waiting=waiting,
    )
    hide(*kept.secrets)
    board.account(kept.account.kind)
    board.move(Event.ACCOUNT_READY)
    return kept


async def confirm(settings: Settings, world: World, board: Board, switch: KillSwitch, kept: Kept) -> None:
    """Look once, some time after connecting, whether a WARP+ licence is still honoured."""
    await world.clock.sleep(LOOK_AGAIN)
    path = settings.account.state_dir / FILE
    wished = wishes(settings).license_key
    kept = await confirmed(path, kept, wished, warp_api(settings, world, switch.hole))
    board.account(kept.account.kind)


async def questioned(
    settings: Settings, world: World, board: Board, switch: KillSwitch, found: Uplinks, doubt: Doubt
) -> None:
    """Ask the API whenever the account is doubted. Raises RenewedError when it is another, or none."""
    path = settings.account.state_dir / FILE
    while True:
        await doubt.taken()
        try:
            api = warp_api(settings, world, switch.hole)
            why = await doubted(path, api, world.clock, own=found.addresses)
        except Error as error:
            log.warning("the account is not checked: %s", error)
            continue
        if why is None or board.status.state is not State.HEALING:
            continue  # nothing new, or the tunnel answers meanwhile: then the next start is early enough
        if why:
            board.move(Event.ACCOUNT_GONE, why, logging.WARNING)
        raise RenewedError


def farewell(
    settings: Settings, world: World, board: Board, switch: KillSwitch, *, limit: float = FAREWELL
) -> Callable[[], Awaitable[None]]:
    """Return what to do at the end: unregister, where the setting or a command wants it."""

    async def leave() -> None:
        if board.status.state is not State.STOPPING:
            return  # a failure, or a new beginning: the account is still needed
        path = settings.account.state_dir / FILE
        try:
            kept = look(path)
        except StateError:
            return  # never had one
        try:
            if kept.leaving or settings.account.unregister_on_exit:
                with anyio.fail_after(limit):
                    await left(path, kept, warp_api(settings, world, switch.hole))
        except (TimeoutError, Error) as error:
            log.warning("the device is not unregistered: %s", str(error) or f"no answer within {limit:g} s")

    return leave
