"""The account on the volume: `account.json`, its versions, and how it is changed.

Format 2 is `{"format": 2, "account": …}` with what is still to be done beside the account, or before an
account is usable `{"format": 2, "pending": …}`. Whatever changes something at Cloudflare is written down
before the call: an answer that gets lost costs no key, and what the API has created is never created twice.
"""

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path

from entrypoint.account import model
from entrypoint.account.model import Access, Account, Kind
from entrypoint.addresses import Address
from entrypoint.errors import Error, StateError
from entrypoint.linux import state_dir
from entrypoint.linux.state_dir import ACCOUNT_FILE
from entrypoint.strict_json import InvalidError, JsonValue, parse_json

CACHED_NAMES = 16
"""Names that are remembered: the API's, the edge's and what the user puts in their place."""


def cached_addresses(cache: Path | None, name: str) -> tuple[Address, ...]:
    """Return what `name` resolved to the last time, empty when that is not known."""
    return _read_cache(cache).get(name, ()) if cache else ()


def cache_addresses(cache: Path | None, name: str, addresses: Sequence[Address]) -> None:
    """Remember where `name` is, or with no addresses forget it; an unwritable volume is no reason to stop."""
    known = _read_cache(cache) if cache else {}
    if not cache or known.get(name, ()) == tuple(addresses):
        return
    known.pop(name, None)
    if addresses:
        known = dict([*list(known.items())[1 - CACHED_NAMES :], (name, tuple(addresses))])
    with suppress(Error):
        state_dir.replace(
            cache, json.dumps({name: list(map(str, them)) for name, them in known.items()}).encode()
        )


def _read_cache(cache: Path) -> dict[str, tuple[Address, ...]]:
    try:
        names = parse_json(state_dir.read(cache) or b"{}")
        known = names.value if isinstance(names.value, dict) else {}
        return {
            str(name): tuple(ip_address(entry.text()) for entry in names.member(name).entries())
            for name in known
        }
    except (Error, ValueError):
        return {}


FORMAT = 2
_START_AGAIN = "restore it from a backup, or delete it to register a new device"


@dataclass(frozen=True, slots=True)
class PendingRegistration:
    """A key without a usable account.

    `device` is what the API created for the key although its answer could not be used: it is read again,
    never registered again; `kind` is given for an enrolled one. Before `due` (seconds since 1970) nothing
    is registered; before `refused_until` what had the digest `refused` is not tried. `missing_since` is
    when the API first said that it does not know `device`. `license_key` is for the account to come.
    """

    private_key: str = field(repr=False)
    api: str
    due: float = 0.0
    license_key: str | None = field(default=None, repr=False)
    device: Access | None = None
    kind: Kind | None = None
    refused: str = ""
    refused_until: float = 0.0
    missing_since: float = 0.0
    leaving: bool = False

    @property
    def secrets(self) -> tuple[str, ...]:
        """What no log may show."""
        keys = (self.private_key, self.license_key, self.device.token if self.device else None)
        return tuple(key for key in keys if key)


@dataclass(frozen=True, slots=True)
class StoredAccount:
    """An account, and what is still to be done with it.

    `next_private_key` is on its way to the API, and may have arrived: until that is known, either
    key may be the account's. `license_key` is to be bound; `leaving`: the device is to be unregistered.
    `missing_since` is when the API first said that it does not know the device. Then `replacement` is
    registered beside it, and once that is usable the old account stays as `previous` until one of the two
    has connected.
    """

    account: Account
    next_private_key: str | None = field(default=None, repr=False)
    license_key: str | None = field(default=None, repr=False)
    leaving: bool = False
    missing_since: float = 0.0
    replacement: PendingRegistration | None = None
    previous: Account | None = None

    @property
    def secrets(self) -> tuple[str, ...]:
        """What no log may show."""
        keys = [self.next_private_key, self.license_key]
        for account in filter(None, (self.account, self.previous)):
            token = account.access.token if account.access else None
            keys += [account.private_key, account.license_key, token]
        return tuple(key for key in keys if key) + (self.replacement.secrets if self.replacement else ())


type Stored = StoredAccount | PendingRegistration


def exists(directory: Path) -> bool:
    """Return whether an account is stored: then this is not the first run."""
    try:
        return (directory / ACCOUNT_FILE).exists()
    except OSError:  # reading it will say what is wrong
        return True


def load(path: Path) -> Stored | None:
    """Return what `path` holds; a file that cannot be read stays as it is and stops the start.

    It may be a newer version's, which the user is coming back to. Raises StateError, BusyError.
    """
    data = state_dir.read(path)
    if data is None:
        return None
    try:
        return parse(parse_json(data))
    except InvalidError as error:
        raise StateError(
            f"cannot read the account in {path}; not registering a new one: {error}", _START_AGAIN
        ) from error


def read(path: Path) -> StoredAccount:
    """Return the account. Raises StateError when none is usable yet."""
    stored = load(path)
    if isinstance(stored, StoredAccount):
        return stored
    registered = stored and stored.device
    raise StateError(
        f"the account in {path} is registered but not usable"
        if registered
        else f"there is no account in {path} yet",
        "is the container running? check its log (docker compose logs)",
    )


def write(path: Path, stored: Stored) -> None:
    """Replace the file while no one else changes it. Raises StateError, BusyError."""
    with state_dir.edit_lock(path.parent):
        _write(path, stored)


def remove(path: Path) -> None:
    """Remove the file while no one else changes it. Raises StateError."""
    with state_dir.edit_lock(path.parent):
        state_dir.remove(path)


# Under the second lock, so that a command and the supervisor never overwrite each other's change.
def edit(path: Path, change: Callable[[StoredAccount], StoredAccount]) -> StoredAccount:
    """Change the account while no one else does: supervisor and commands may run side by side.

    Raises StateError, BusyError.
    """
    with state_dir.edit_lock(path.parent):
        before = read(path)
        after = change(before)
        if after != before:
            _write(path, after)
        return after


def _write(path: Path, stored: Stored) -> None:
    document: dict[str, object] = {"format": FORMAT}
    match stored:
        case PendingRegistration():
            document["pending"] = _pending_to_json(stored)
        case StoredAccount():
            document["account"] = model.to_json(stored.account)
            left = ("next_private_key", "license_key", "leaving", "missing_since")
            document |= {name: getattr(stored, name) for name in left if getattr(stored, name)}
            if stored.replacement:
                document["replacement"] = _pending_to_json(stored.replacement)
            if stored.previous:
                document["previous"] = model.to_json(stored.previous)
    state_dir.replace(path, json.dumps(document, indent=1).encode() + b"\n")


def _pending_to_json(pending: PendingRegistration) -> dict[str, object]:
    always = {"private_key": pending.private_key, "api": pending.api, "due": pending.due}
    names = ("license_key", "kind", "refused", "refused_until", "missing_since", "leaving")
    document = always | {name: getattr(pending, name) for name in names if getattr(pending, name)}
    if pending.device:
        document["device"] = {"id": pending.device.device_id, "token": pending.device.token}
    return document


def parse(stored: JsonValue) -> Stored:
    """Read the file's object, of this version or an older one. Raises InvalidError."""
    version = stored.member("format").number()
    # Format 1 had no work left to do beside its account: reading it as 2 is the whole migration.
    if version not in (1, FORMAT):
        stored.member("format").reject(f"{version} is of another version of ss-warp, this one reads {FORMAT}")
    if pending := stored.optional("pending", _pending_registration):
        return pending
    return StoredAccount(
        model.from_json(stored.member("account")),
        next_private_key=stored.optional("next_private_key", model.private_key_in),
        license_key=stored.optional("license_key", JsonValue.text),
        leaving=stored.member("leaving").value is True,
        missing_since=stored.optional("missing_since", JsonValue.real) or 0.0,
        replacement=stored.optional("replacement", _pending_registration),
        previous=stored.optional("previous", model.from_json),
    )


def _pending_registration(stored: JsonValue) -> PendingRegistration:
    return PendingRegistration(
        model.private_key_in(stored.member("private_key")),
        stored.member("api").text(),
        stored.optional("due", JsonValue.real) or 0.0,
        stored.optional("license_key", JsonValue.text),
        stored.optional("device", model.access_in),
        stored.optional("kind", model.kind_in),
        stored.optional("refused", JsonValue.text) or "",
        stored.optional("refused_until", JsonValue.real) or 0.0,
        stored.optional("missing_since", JsonValue.real) or 0.0,
        stored.member("leaving").value is True,
    )
