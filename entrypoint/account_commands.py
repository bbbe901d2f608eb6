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

from entrypoint import files
from entrypoint.errors import UnhealableError, UsageError
from entrypoint.network.plan import Destination
from entrypoint.settings import Settings, load
from entrypoint.settings.credentials import LICENSE
from entrypoint.warp.account import new_private_key, public_key
from entrypoint.warp.store import FILE, Kept, edit, look

RESTART = "docker compose restart"


def run(given: argparse.Namespace) -> None:
    """Run the command. Raises Error."""
    actions: dict[str, Callable[[argparse.Namespace, Settings], None]] = {
        "show": _show,
        "license": _license,
        "rotate-key": _rotate,
        "delete": _delete,
        "export": _export,
    }
    actions[given.action](given, load(os.environ))


def shown(kept: Kept) -> list[str]:
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
    print("\n".join(shown(look(settings.account.state_dir / FILE))))


def _export(given: argparse.Namespace, settings: Settings) -> None:
    from entrypoint.warp.exported import profile, wgcf_account

    kept = look(settings.account.state_dir / FILE)
    text = profile(kept.account) if given.format == "wireguard" else wgcf_account(kept.account)
    if text is None:
        raise UsageError("an account imported without a token cannot be wgcf's", "leave --format out")
    if kept.next_private_key:
        print("ss-warp: the key is being changed: what is exported may be the old one", file=sys.stderr)
    sys.stdout.write(text)


def _license(given: argparse.Namespace, settings: Settings) -> None:
    try:
        LICENSE.parse(given.key)
    except ValueError as error:
        raise UsageError(f"KEY: {error}", f"expected {LICENSE.expected}") from None
    if settings.account.license_key:
        raise UsageError("WARP_LICENSE_KEY is set, and would win at the next start", "change it there")
    kept = look(settings.account.state_dir / FILE)
    if kept.account.license_key == given.key.strip():
        print("this licence key is bound already")
        return
    _managed(kept)
    _change(settings, lambda kept: replace(kept, license_key=given.key.strip()), "the licence key is bound")


def _rotate(_: argparse.Namespace, settings: Settings) -> None:
    _managed(look(settings.account.state_dir / FILE))
    key = new_private_key()
    _change(
        settings,
        lambda kept: kept if kept.next_private_key else replace(kept, next_private_key=key),
        "the key is changed",
    )


def _delete(given: argparse.Namespace, settings: Settings) -> None:
    kept = look(settings.account.state_dir / FILE)
    if not given.yes:
        if not sys.stdin.isatty():
            raise UsageError("account delete asks, and nobody is there to answer", "add --yes")
        what = f"the device {kept.account.access.device_id}" if kept.account.access else "this account"
        if input(f"Unregister {what} and forget its keys? There is no way back. [yes/no] ") != "yes":
            print("nothing is changed")
            return
    _change(settings, lambda kept: replace(kept, leaving=True), "the device is unregistered", "stops")


def _managed(kept: Kept) -> None:
    if kept.account.access is None:
        raise UsageError(
            "this account was imported from a profile without a token: it connects, and cannot be changed"
        )


def _change(settings: Settings, change: Callable[[Kept], Kept], what: str, when: str = "starts") -> None:
    """Write down what is wanted; do it now when no supervisor runs, else say when it is done."""
    directory = settings.account.state_dir
    kept = edit(directory / FILE, change)
    try:
        with files.locked(directory):
            _at_once(settings, kept)
    except files.HeldError:
        print(f"written down: {what} when ss-warp {when} the next time: {RESTART}")


def _at_once(settings: Settings, kept: Kept) -> None:
    import anyio

    from entrypoint.accounts import warp_api, wishes
    from entrypoint.children import SystemProcesses
    from entrypoint.clock import SystemClock
    from entrypoint.https import SystemHttp
    from entrypoint.log import configure, hide
    from entrypoint.network.netlink import SystemNetlink
    from entrypoint.network.nft import SystemNft
    from entrypoint.ports import World
    from entrypoint.warp.life import changed

    configure(settings.logs.level, settings.logs.format)
    hide(*kept.secrets)
    world = World(SystemClock(), SystemHttp(), SystemNetlink(), SystemNft(), SystemProcesses())
    api = warp_api(settings, world, _open)
    wished = wishes(settings).license_key
    after = anyio.run(changed, settings.account.state_dir, kept, api, world.clock, wished)
    if after and (after.leaving or after.next_private_key or after.license_key):
        raise UnhealableError("it is written down, and not done yet", "the next start tries again")


@asynccontextmanager
async def _open(_: frozenset[Destination]) -> AsyncIterator[None]:
    """Nobody has closed the firewall: no supervisor runs here."""
    yield
