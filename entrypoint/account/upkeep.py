"""The account during one run: loaded before the tunnel, rechecked behind it, unregistered at the end."""

import logging
import random
import socket
from datetime import UTC, datetime

import anyio

from entrypoint.account import lifecycle, replacement, store
from entrypoint.account.api import Reach, WarpApi
from entrypoint.account.registration import AccountWishes, PastedToken, ServiceToken, Team
from entrypoint.account.store import StoredAccount
from entrypoint.addresses import MARK
from entrypoint.errors import Error, StateError
from entrypoint.firewall.killswitch import KillSwitch
from entrypoint.health.diagnosis import AccountCheck
from entrypoint.linux.state_dir import ACCOUNT_FILE, ADDRESS_CACHE_FILE
from entrypoint.linux.world import World
from entrypoint.log import hide
from entrypoint.routing.uplinks import Uplinks
from entrypoint.settings import Settings
from entrypoint.status.board import Run
from entrypoint.status.states import OUTAGE, Event, State

LICENCE_RECHECK = 120.0
"""Seconds after connecting until a WARP+ licence is checked: a restart loop must not ask each time."""

UNREGISTER_TIMEOUT = 3.0
"""Seconds that unregistering may take: the whole stop must fit into five."""

log = logging.getLogger("ss-warp")


RECHECK_EVERY = 600.0
"""Seconds, give or take a fifth, between two questions about an account whose tunnel stays dead."""


class RenewedError(Exception):
    """The account on the volume is another now: the supervisor starts over with it."""


class Rechecks:
    """When the API may be asked about the account again, and what it said; outlives a tunnel."""

    def __init__(self) -> None:
        self.due = 0.0
        self.last = AccountCheck()
        self._noted = anyio.Event()

    def note(self, check: AccountCheck) -> None:
        """Remember what the API said."""
        self.last = check
        self._noted.set()
        self._noted = anyio.Event()

    async def noted(self) -> None:
        """Wait until the API has said something."""
        await self._noted.wait()


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

    def __init__(self, run: Run, switch: KillSwitch, uplinks: Uplinks, rechecks: Rechecks) -> None:
        self._rechecks = rechecks
        self._run, self._uplinks = run, uplinks
        self._board, self._clock = run.board, run.world.clock
        self._path = run.state_file(ACCOUNT_FILE)
        self._wishes = account_wishes(run.settings)
        self._api = warp_api(run.settings, run.world, switch.hole)
        self._doubted = anyio.Event()

    async def load_or_register(self) -> StoredAccount:
        """Return the stored account, or register one; meanwhile the board shows when it tries next."""
        hide(self._wishes.license_key or "")
        match self._wishes.team:
            case PastedToken(jwt):
                hide(jwt)
            case ServiceToken(client_secret=secret):
                hide(secret)
        registering = not store.exists(self._path.parent)
        if registering:
            self._board.move(Event.ACCOUNT_MISSING)
        stored = await lifecycle.load_or_register(
            self._path.parent,
            self._api,
            self._clock,
            own=self._uplinks.addresses,
            wishes=self._wishes,
            waiting=self._show_wait,
        )
        if registering:
            self._rechecks.note(AccountCheck(self._clock.wall()))
        hide(*stored.secrets)
        self._board.show_account(stored.account.kind)
        self._board.move(Event.ACCOUNT_READY)
        return stored

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
            await self._clock.sleep(max(0.0, self._rechecks.due - self._clock.monotonic()))
            if not self._in_doubt():
                continue
            self._rechecks.due = self._clock.monotonic() + random.uniform(0.8, 1.2) * RECHECK_EVERY  # noqa: S311
            while self._in_doubt():
                try:
                    shown = await self._recheck()
                except Error as error:
                    log.warning("cannot check the account: %s", error)
                    shown = replacement.Recheck(self._rechecks.last.trouble, str(error))
                self._rechecks.note(AccountCheck(self._clock.wall(), shown.trouble, shown.unknown))
                # When the tunnel has answered meanwhile, the next start is early enough.
                if shown.changed and self._in_doubt():
                    if shown.gone:
                        self._board.move(Event.ACCOUNT_GONE, shown.gone, logging.WARNING)
                    self._rechecks.last = AccountCheck()  # of another account
                    raise RenewedError
                if shown.again is None:
                    break
                await self._clock.sleep(shown.again * random.uniform(1, 2))  # noqa: S311

    def last_check(self) -> AccountCheck:
        """Return what the API last said about the account."""
        return self._rechecks.last

    async def checked(self) -> None:
        """Wait until the API has said something about the account."""
        await self._rechecks.noted()

    def _in_doubt(self) -> bool:
        return self._board.status.state in OUTAGE

    async def _recheck(self) -> replacement.Recheck:
        return await replacement.recheck(
            self._path,
            self._api,
            self._clock,
            own=self._uplinks.addresses,
            wishes=self._wishes,
            waiting=lambda reason, pause: log.warning("%s; retrying in %.0f s", reason, pause),
            needed=self._in_doubt,
        )

    async def recheck_licence(self, stored: StoredAccount) -> None:
        """Check once, some time after connecting, whether a WARP+ licence is still honoured."""
        await self._clock.sleep(LICENCE_RECHECK)
        stored = await lifecycle.check_licence(self._path, stored, self._wishes.license_key, self._api)
        self._board.show_account(stored.account.kind)

    async def unregister_on_exit(self, limit: float = UNREGISTER_TIMEOUT) -> None:
        """Unregister the device if the setting or a command wants that; takes at most `limit` seconds."""
        # Unregistering belongs to a stop that was wanted. A crash loop must not spend registrations.
        if self._board.status.state is not State.STOPPING:
            return  # a failure, or a new start: the account is still needed
        try:
            stored = store.load(self._path)
        except StateError:
            return
        try:
            if stored and (stored.leaving or self._run.settings.account.unregister_on_exit):
                with anyio.fail_after(limit):
                    await lifecycle.unregister(self._path, stored, self._api)
        except (TimeoutError, Error) as error:
            log.warning("cannot unregister the device: %s", str(error) or f"no answer within {limit:g} s")
