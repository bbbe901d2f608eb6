"""`ss-warp account …`: shows the account, and leaves what is to be changed on the volume.

The supervisor holds the state directory while it runs, and a new key or a deleted device would end its
tunnel under it. So a command writes down what is wanted; the supervisor does it when it starts or stops,
and when none runs it is done at once.
"""

import argparse
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

from entrypoint.account.model import new_private_key, public_key
from entrypoint.account.store import StoredAccount, edit, read
from entrypoint.addresses import Destination
from entrypoint.errors import UnhealableError, UsageError
from entrypoint.linux import state_dir
from entrypoint.linux.state_dir import ACCOUNT_FILE
from entrypoint.settings import Settings, load
from entrypoint.settings.values import LICENSE_KEY

RESTART = "docker compose restart"


def run_account_command(given: argparse.Namespace) -> None:
    """Run the command. Raises Error."""
    actions: dict[str, Callable[[argparse.Namespace, Settings], None]] = {
        "show": _show,
        "license": _license,
        "rotate-key": _rotate,
        "delete": _delete,
        "export": _export,
    }
    actions[given.action](given, load(os.environ))


def describe_account(kept: StoredAccount) -> list[str]:
    """Return the account in lines, secrets hidden."""
    account = kept.account
    hidden = {True: "(hidden)", False: "none"}
    lines = {
        "kind": account.kind,
        "device": account.access.device_id if account.access else "not known: imported from a profile",
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
        (kept.next_private_key, "the key is changed at the next start, or has been: both are kept"),
        (kept.license_key, "another licence key is bound at the next start"),
        (kept.leaving, "the device is unregistered when ss-warp stops"),
    ]
    return [f"{name:12}{value}" for name, value in lines.items()] + [text for due, text in todo if due]


def _show(_: argparse.Namespace, settings: Settings) -> None:
    print("\n".join(describe_account(read(settings.account.state_dir / ACCOUNT_FILE))))


def _export(given: argparse.Namespace, settings: Settings) -> None:
    from entrypoint.account.formats import profile, wgcf_account

    kept = read(settings.account.state_dir / ACCOUNT_FILE)
    text = profile(kept.account) if given.format == "wireguard" else wgcf_account(kept.account)
    if text is None:
        raise UsageError("an account imported without a token cannot be wgcf's", "leave --format out")
    if kept.next_private_key:
        print("ss-warp: the key is being changed: what is exported may be the old one", file=sys.stderr)
    sys.stdout.write(text)


def _license(given: argparse.Namespace, settings: Settings) -> None:
    try:
        LICENSE_KEY.parse(given.key)
    except ValueError as error:
        raise UsageError(f"KEY: {error}", f"expected {LICENSE_KEY.expected}") from None
    if settings.account.license_key:
        raise UsageError("WARP_LICENSE_KEY is set, and would win at the next start", "change it there")
    kept = read(settings.account.state_dir / ACCOUNT_FILE)
    if kept.account.license_key == given.key.strip():
        print("this licence key is bound already")
        return
    _managed(kept)
    _change(settings, lambda kept: replace(kept, license_key=given.key.strip()), "the licence key is bound")


def _rotate(_: argparse.Namespace, settings: Settings) -> None:
    _managed(read(settings.account.state_dir / ACCOUNT_FILE))
    key = new_private_key()
    _change(
        settings,
        lambda kept: kept if kept.next_private_key else replace(kept, next_private_key=key),
        "the key is changed",
    )


def _delete(given: argparse.Namespace, settings: Settings) -> None:
    kept = read(settings.account.state_dir / ACCOUNT_FILE)
    if not given.yes:
        if not sys.stdin.isatty():
            raise UsageError("account delete asks, and nobody is there to answer", "add --yes")
        what = f"the device {kept.account.access.device_id}" if kept.account.access else "this account"
        if input(f"Unregister {what} and forget its keys? There is no way back. [yes/no] ") != "yes":
            print("nothing is changed")
            return
    _change(settings, lambda kept: replace(kept, leaving=True), "the device is unregistered", "stops")


def _managed(kept: StoredAccount) -> None:
    if kept.account.access is None:
        raise UsageError(
            "this account was imported from a profile without a token: it connects, and cannot be changed"
        )


def _change(
    settings: Settings, change: Callable[[StoredAccount], StoredAccount], what: str, when: str = "starts"
) -> None:
    """Write down what is wanted; do it now when no supervisor runs, else say when it is done."""
    directory = settings.account.state_dir
    kept = edit(directory / ACCOUNT_FILE, change)
    try:
        with state_dir.lock(directory):
            _at_once(settings, kept)
    except state_dir.HeldError:
        print(f"written down: {what} when ss-warp {when} the next time: {RESTART}")


def _at_once(settings: Settings, kept: StoredAccount) -> None:
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
    world = World(SystemClock(), SystemHttp(), SystemNetlink(), SystemNft(), SystemProcesses())
    api = warp_api(settings, world, _open)
    wished = account_wishes(settings).license_key
    after = anyio.run(apply_pending, settings.account.state_dir, kept, api, world.clock, wished)
    if after and (after.leaving or after.next_private_key or after.license_key):
        raise UnhealableError("it is written down, and not done yet", "the next start tries again")


@asynccontextmanager
async def _open(_: frozenset[Destination]) -> AsyncIterator[None]:
    """Nobody has closed the firewall: no supervisor runs here."""
    yield
