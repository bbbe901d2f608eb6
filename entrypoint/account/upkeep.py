"""The account during one run: obtained before the tunnel, rechecked behind it, unregistered at the end."""

import logging
import socket
from datetime import UTC, datetime
from typing import Final

import anyio

from entrypoint.account import lifecycle, store
from entrypoint.account.api import Reach, WarpApi
from entrypoint.account.lifecycle import AccountWishes
from entrypoint.account.registration import PastedToken, ServiceToken, Team
from entrypoint.account.store import StoredAccount
from entrypoint.addresses import MARK
from entrypoint.errors import Error, StateError
from entrypoint.firewall.killswitch import KillSwitch
from entrypoint.linux.state_dir import ACCOUNT_FILE, ADDRESS_CACHE_FILE
from entrypoint.linux.world import World
from entrypoint.log import hide
from entrypoint.routing.uplinks import Uplinks
from entrypoint.settings import Settings
from entrypoint.status.board import Run
from entrypoint.status.states import OUTAGE, Event, State

LICENCE_RECHECK: Final = 120.0
"""Seconds after connecting until a WARP+ licence is checked: a restart loop must not ask each time."""

UNREGISTER_TIMEOUT: Final = 3.0
"""Seconds that unregistering may take: the whole stop must fit into five."""

log = logging.getLogger("ss-warp")


class RenewedError(Exception):
    """The account was replaced, or has to be registered again: the supervisor starts over with it."""


def account_wishes(settings: Settings) -> AccountWishes:
    """Return what the settings want of the account."""
    account = settings.account
    team: Team | None = None
    if account.team_token:
        team = PastedToken(account.team_token.reveal())
    elif account.org and account.auth_client_id and account.auth_client_secret:
        team = ServiceToken(account.org, account.auth_client_id, account.auth_client_secret.reveal())
    return AccountWishes(
        device_name=account.device_name or socket.gethostname(),
        license_key=account.license_key.reveal() if account.license_key else None,
        import_file=account.import_file,
        team=team,
    )


def warp_api(settings: Settings, world: World, reach: Reach) -> WarpApi:
    """Return the API client; it connects outside the tunnel."""
    return WarpApi(
        http=world.http,
        clock=world.clock,
        reach=reach,
        servers=settings.dns.addresses,
        mark=MARK.value,
        base_url=settings.account.api_url,
        ca_file=settings.account.api_ca_file,
        memory=settings.account.state_dir / ADDRESS_CACHE_FILE,
    )


class AccountUpkeep:
    """Obtain the account, and keep it in line with the settings and with what the API says."""

    def __init__(self, run: Run, switch: KillSwitch, uplinks: Uplinks) -> None:
        self._run, self._uplinks = run, uplinks
        self._board, self._clock = run.board, run.world.clock
        self._path = run.state_file(ACCOUNT_FILE)
        self._wishes = account_wishes(run.settings)
        self._api = warp_api(run.settings, run.world, switch.hole)
        self._doubted = anyio.Event()

    async def load_or_register(self) -> StoredAccount:
        """Return the stored account, or register one; meanwhile the board shows when the next try is."""
        hide(self._wishes.license_key or "")
        match self._wishes.team:
            case PastedToken(jwt):
                hide(jwt)
            case ServiceToken(client_secret=secret):
                hide(secret)
        if not store.exists(self._path.parent):
            self._board.move(Event.ACCOUNT_MISSING)
        kept = await lifecycle.load_or_register(
            self._path.parent,
            self._api,
            self._clock,
            own=self._uplinks.addresses,
            wishes=self._wishes,
            waiting=self._show_wait,
        )
        hide(*kept.secrets)
        self._board.show_account(kept.account.kind)
        self._board.move(Event.ACCOUNT_READY)
        return kept

    def _show_wait(self, reason: str, pause: float) -> None:
        if self._board.status.state is not State.REGISTERING:
            self._board.move(Event.ACCOUNT_MISSING)
        due = datetime.fromtimestamp(self._clock.wall() + pause, UTC)
        words = f"{reason}; retrying in {pause:.0f} s, at {due:%H:%M:%S} UTC"
        self._board.move(Event.API_SILENT, words, logging.WARNING)

    def doubt(self) -> None:
        """Have the account rechecked: the tunnel is dead, and the account may be why. Never waits."""
        self._doubted.set()

    async def recheck_when_doubted(self) -> None:
        """Ask the API each time the account is doubted. Raises RenewedError when it was replaced."""
        while True:
            await self._doubted.wait()
            self._doubted = anyio.Event()
            try:
                why = await lifecycle.recheck(self._path, self._api, self._clock, own=self._uplinks.addresses)
            except Error as error:
                log.warning("cannot check the account: %s", error)
                continue
            if why is None or self._board.status.state not in OUTAGE:
                continue  # unchanged, or the tunnel has answered meanwhile: the next start is early enough
            if why:
                self._board.move(Event.ACCOUNT_GONE, why, logging.WARNING)
            raise RenewedError

    async def recheck_licence(self, kept: StoredAccount) -> None:
        """Check once, some time after connecting, whether a WARP+ licence is still honoured."""
        await self._clock.sleep(LICENCE_RECHECK)
        kept = await lifecycle.check_licence(self._path, kept, self._wishes.license_key, self._api)
        self._board.show_account(kept.account.kind)

    async def unregister_on_exit(self, limit: float = UNREGISTER_TIMEOUT) -> None:
        """Unregister the device if the setting or a command wants that; takes at most `limit` seconds."""
        if self._board.status.state is not State.STOPPING:
            return  # a failure, or a new beginning: the account is still needed
        try:
            kept = store.read(self._path)
        except StateError:
            return  # there never was one
        try:
            if kept.leaving or self._run.settings.account.unregister_on_exit:
                with anyio.fail_after(limit):
                    await lifecycle.unregister(self._path, kept, self._api)
        except (TimeoutError, Error) as error:
            log.warning("cannot unregister the device: %s", str(error) or f"no answer within {limit:g} s")
