"""The account on the volume: `account.json`, its versions, and how it is changed.

Format 2 is `{"format": 2, "account": …}` with what is still to be done with the account beside it, or
before there is one `{"format": 2, "pending": …}`: the key is written before it is sent, so that an
answer that gets lost costs one orphaned device and never a key.
"""

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from entrypoint.account.model import Account, from_json, to_json
from entrypoint.account.strict_json import InvalidError, JsonValue, parse_json
from entrypoint.addresses import Address
from entrypoint.errors import Error, StateError
from entrypoint.linux import state_dir
from entrypoint.linux.state_dir import ACCOUNT_FILE

CACHED_NAMES: Final = 16
"""Names that are remembered: the API's, the edge's and what the user puts in their place."""


def cached_addresses(memory: Path | None, name: str) -> tuple[Address, ...]:
    """Return where `name` was, empty when that is not known."""
    return _read_cache(memory).get(name, ()) if memory else ()


def cache_addresses(memory: Path | None, name: str, addresses: Sequence[Address]) -> None:
    """Keep where `name` is; a volume that cannot be written is no reason to stop."""
    known = _read_cache(memory) if memory else {}
    if not memory or known.get(name) == tuple(addresses):
        return
    known.pop(name, None)
    latest = [*list(known.items())[1 - CACHED_NAMES :], (name, tuple(addresses))]
    with suppress(Error):
        state_dir.replace(memory, json.dumps({name: list(map(str, them)) for name, them in latest}).encode())


def _read_cache(memory: Path) -> dict[str, tuple[Address, ...]]:
    try:
        kept = parse_json(state_dir.read(memory) or b"")
        names = kept.value if isinstance(kept.value, dict) else {}
        return {
            str(name): tuple(ip_address(entry.text()) for entry in kept.at(name).entries()) for name in names
        }
    except (Error, ValueError):
        return {}


FORMAT: Final = 2


@dataclass(frozen=True, slots=True)
class PendingRegistration:
    """A key without an account; `due` is when this API may be asked again, in seconds since 1970.

    `license_key` is that of an account that is gone: the next one gets it.
    """

    private_key: str = field(repr=False)
    api: str
    due: float = 0.0
    license_key: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class StoredAccount:
    """An account, and what the next start has to do with it.

    `next_private_key` is on its way to the API, and may have arrived: until that is known, either
    key may be the account's. `license_key` was asked for by `account license`; `leaving`: the device
    is to be unregistered.
    """

    account: Account
    next_private_key: str | None = field(default=None, repr=False)
    license_key: str | None = field(default=None, repr=False)
    leaving: bool = False

    @property
    def secrets(self) -> tuple[str, ...]:
        """What no log may show."""
        account = self.account
        keys = (account.private_key, account.license_key, self.next_private_key, self.license_key)
        return tuple(key for key in (account.access and account.access.token, *keys) if key)


def exists(directory: Path) -> bool:
    """Return whether an account is kept: then this is not the first run."""
    try:
        return (directory / ACCOUNT_FILE).exists()
    except OSError:  # whoever reads it says what is wrong
        return True


def load(path: Path, now: float) -> StoredAccount | PendingRegistration | None:
    """Return what `path` keeps; a file that is not ours is kept aside and never replaced by a new account.

    `now` is seconds since 1970. Raises StateError, BusyError.
    """
    data = state_dir.read(path)
    if data is None:
        aside = sorted(path.parent.glob(f"{path.name}.corrupt-*"))
        if aside:
            raise StateError(
                f"there is no {path}, but {aside[-1].name}, which was not a usable account",
                f"restore {path.name} from a backup, or delete {aside[-1].name} to register anew",
            )
        return None
    try:
        return parse(parse_json(data))
    except InvalidError as error:
        kept = state_dir.quarantine(path, f"{datetime.fromtimestamp(now, UTC):%Y%m%dT%H%M%SZ}")
        raise StateError(
            f"{path} is not a usable account, nothing is registered: {error}; it is kept as {kept.name}",
            f"restore {path.name} from a backup, or delete {kept.name} to register anew",
        ) from error


def read(path: Path) -> StoredAccount:
    """Return the account, and touch nothing. Raises StateError when there is none."""
    data = state_dir.read(path)
    hint = "is the container running? its log says what it waits for"
    if data is None:
        raise StateError(f"there is no {path} yet", hint)
    try:
        kept = parse(parse_json(data))
    except InvalidError as error:
        raise StateError(f"{path} is not a usable account: {error}") from error
    if isinstance(kept, PendingRegistration):
        raise StateError("no account is registered yet", hint)
    return kept


def write(path: Path, kept: StoredAccount | PendingRegistration) -> None:
    """Replace the file. Raises StateError, BusyError."""
    document: dict[str, object] = {"format": FORMAT}
    match kept:
        case PendingRegistration():
            document["pending"] = asdict(kept)
        case StoredAccount():
            document["account"] = to_json(kept.account)
            still = {name: getattr(kept, name) for name in ("next_private_key", "license_key", "leaving")}
            document |= {name: value for name, value in still.items() if value}
    state_dir.replace(path, json.dumps(document, indent=1).encode() + b"\n")


def edit(path: Path, change: Callable[[StoredAccount], StoredAccount]) -> StoredAccount:
    """Change the account while nobody else does: supervisor and commands may run side by side.

    Raises StateError, BusyError.
    """
    with state_dir.edit_lock(path.parent):
        before = read(path)
        after = change(before)
        if after != before:
            write(path, after)
        return after


def parse(kept: JsonValue) -> StoredAccount | PendingRegistration:
    """Read the file's object, of this version or an older one. Raises InvalidError."""
    version = kept.at("format").number()
    # Format 1 had no work left to do beside its account: reading it as 2 is the whole migration.
    if version not in (1, FORMAT):
        kept.at("format").refuse(f"{version} is of another version of ss-warp, this one reads {FORMAT}")
    pending = kept.maybe("pending", _pending_registration)
    if pending:
        return pending
    return StoredAccount(
        from_json(kept.at("account")),
        next_private_key=kept.maybe("next_private_key", _private_key),
        license_key=kept.maybe("license_key", JsonValue.text),
        leaving=kept.at("leaving").value is True,
    )


def _pending_registration(kept: JsonValue) -> PendingRegistration:
    key, due = _private_key(kept.at("private_key")), kept.at("due").value
    if not isinstance(due, float | int):
        kept.at("due").refuse("expected a number")
    return PendingRegistration(key, kept.at("api").text(), due, kept.maybe("license_key", JsonValue.text))


def _private_key(entry: JsonValue) -> str:
    entry.octets(32)
    return entry.text()
