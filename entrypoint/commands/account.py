"""`ss-warp account …`: show the saved account, or save a change to it.

A new key or a deleted device would break the tunnel of a running supervisor. So a command only saves the
change; the supervisor applies it on its next start or stop. If none is running, it is applied at once.
"""

import argparse
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from getpass import getpass

from entrypoint.account.model import new_private_key, public_key
from entrypoint.account.store import PendingRegistration, StoredAccount, edit, read, write
from entrypoint.account.store import load as load_account
from entrypoint.addresses import Destination
from entrypoint.errors import UnhealableError, UsageError
from entrypoint.linux import state_dir
from entrypoint.linux.state_dir import ACCOUNT_FILE
from entrypoint.settings import Settings, load
from entrypoint.settings.values import LICENSE_KEY

RESTART = "docker compose restart"
LEAVE = "docker compose stop; a later start registers a new device"


def run_account_command(given: argparse.Namespace) -> None:
    actions: dict[str, Callable[[argparse.Namespace, Settings], None]] = {
        "show": _show,
        "license": _license,
        "rotate-key": _rotate,
        "delete": _delete,
        "export": _export,
    }
    actions[given.action](given, load(os.environ))


def describe_account(kept: StoredAccount) -> list[str]:
    """Return the account as lines for people, secrets masked."""
    account = kept.account
    hidden = {True: "(hidden)", False: "none"}
    lines = {
        "kind": account.kind,
        "device": account.access.device_id if account.access else "unknown (imported from a profile)",
        "created": f"{account.created:%Y-%m-%d %H:%M:%S} UTC",
        "public key": public_key(account.private_key),
        "private key": hidden[True],
        "token": hidden[bool(account.access)],
        "licence key": hidden[bool(account.license_key)],
        "addresses": ", ".join(str(one.ip) for one in account.addresses),
        "peer": account.peer_public_key,
        "endpoints": ", ".join(map(str, (*account.endpoints, account.endpoint_name or ""))).rstrip(", "),
        "reserved": ",".join(map(str, account.client_id)) if account.client_id else "none",
    }
    todo = [
        (kept.next_private_key, "pending: replace the key on the next start (both keys are saved)"),
        (kept.license_key, "pending: bind another licence key on the next start"),
        (kept.leaving, "pending: unregister the device when ss-warp stops"),
    ]
    return [f"{name:12}{value}" for name, value in lines.items()] + [text for due, text in todo if due]


def _show(_: argparse.Namespace, settings: Settings) -> None:
    print("\n".join(describe_account(read(settings.account.state_dir / ACCOUNT_FILE))))


def _export(given: argparse.Namespace, settings: Settings) -> None:
    from entrypoint.account.formats import profile, wgcf_account

    kept = read(settings.account.state_dir / ACCOUNT_FILE)
    text = profile(kept.account) if given.format == "wireguard" else wgcf_account(kept.account)
    if text is None:
        raise UsageError("cannot export an account without a token for wgcf", "omit --format")
    if kept.next_private_key:
        print("ss-warp: a key change is pending, so this may be the old key", file=sys.stderr)
    sys.stdout.write(text)


def _license(given: argparse.Namespace, settings: Settings) -> None:
    if given.key is None:
        # An argument shows in the host's list of processes.
        given.key = getpass("WARP+ licence key: ") if sys.stdin.isatty() else sys.stdin.readline()
    try:
        LICENSE_KEY.parse(given.key)
    except ValueError as error:
        raise UsageError(f"KEY: {error}", f"expected {LICENSE_KEY.expected}") from None
    # Otherwise the next start would bind the setting's key again.
    if settings.account.license_key:
        raise UsageError("WARP_LICENSE_KEY is set and takes precedence", "change it there")
    kept = read(settings.account.state_dir / ACCOUNT_FILE)
    if kept.account.license_key == given.key.strip():
        print("this licence key is already bound")
        return
    _managed(kept)
    _change(settings, lambda kept: replace(kept, license_key=given.key.strip()), "bind the licence key")


def _rotate(_: argparse.Namespace, settings: Settings) -> None:
    _managed(read(settings.account.state_dir / ACCOUNT_FILE))
    key = new_private_key()
    _change(
        settings,
        # A second command must not replace a key that the API may already have.
        lambda kept: kept if kept.next_private_key else replace(kept, next_private_key=key),
        "replace the key",
    )


def _delete(given: argparse.Namespace, settings: Settings) -> None:
    path = settings.account.state_dir / ACCOUNT_FILE
    stored = load_account(path)
    pending = stored if isinstance(stored, PendingRegistration) and stored.device else None
    access = pending.device if pending else read(path).account.access
    if not given.yes:
        # Without a terminal a prompt would wait forever.
        if not sys.stdin.isatty():
            raise UsageError("account delete needs confirmation and stdin is not a terminal", "add --yes")
        what = f"the device {access.device_id}" if access else "this account"
        if input(f"Unregister {what} and delete its keys? This cannot be undone. [yes/no] ") != "yes":
            print("nothing was changed")
            return
    if pending:  # registered, but not usable: no supervisor runs on it
        with state_dir.lock(path.parent):
            write(path, replace(pending, leaving=True))
            _apply_now(settings, replace(pending, leaving=True))
    else:
        what = "unregister the device" if access else "forget the account"
        _change(settings, lambda kept: replace(kept, leaving=True), what, "stops", LEAVE)


def _managed(kept: StoredAccount) -> None:
    if kept.account.access is None:
        raise UsageError("cannot change this account: it was imported from a profile without a token")


def _change(
    settings: Settings,
    change: Callable[[StoredAccount], StoredAccount],
    what: str,
    when: str = "starts",
    hint: str = RESTART,
) -> None:
    """Save a change; apply it now if no supervisor is running, else say when it will be applied."""
    directory = settings.account.state_dir
    kept = edit(directory / ACCOUNT_FILE, change)
    try:
        # The lock is free only if no supervisor runs; then nothing else can be using the account.
        with state_dir.lock(directory):
            _apply_now(settings, kept)
    except state_dir.HeldError:
        print(f"saved: ss-warp will {what} when it next {when} ({hint})")


def _apply_now(settings: Settings, kept: StoredAccount | PendingRegistration) -> None:
    import anyio

    from entrypoint.account.lifecycle import apply_pending
    from entrypoint.account.upkeep import account_wishes, warp_api
    from entrypoint.linux.http import SystemHttp
    from entrypoint.linux.netlink import SystemNetlink
    from entrypoint.linux.nft import SystemNft
    from entrypoint.linux.processes import SystemProcesses
    from entrypoint.linux.this_machine import SystemClock
    from entrypoint.linux.world import World
    from entrypoint.log import configure, hide

    configure(settings.logs.level, settings.logs.format)
    hide(*kept.secrets)
    # Imported here: `account show` needs none of it.
    world = World(SystemClock(), SystemHttp(), SystemNetlink(), SystemNft(), SystemProcesses())
    api = warp_api(settings, world, _open)
    wished = account_wishes(settings).license_key
    after = anyio.run(apply_pending, settings.account.state_dir, kept, api, world.clock, wished)
    left = isinstance(after, StoredAccount) and (after.next_private_key or after.license_key)
    if after and (after.leaving or left):
        raise UnhealableError("saved, but not applied yet", "ss-warp retries at its next start")


@asynccontextmanager
async def _open(_: frozenset[Destination]) -> AsyncIterator[None]:
    """Open no hole: without a supervisor no firewall is closed."""
    yield
