"""Accounts made elsewhere: which form a file has, and what it says, read as strictly as an API's answer.

Known are wgcf's account file, WireGuard profiles (wgcf's among them), and what warp-reg and its like
print: JSON, bare or the whole device, or `name: value` lines.
"""

import base64
import binascii
import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from entrypoint.account.model import Access, Account
from entrypoint.addresses import Endpoint, parse_endpoint
from entrypoint.strict_json import InvalidError, JsonValue, parse_json

MAX_FILE: Final = 65536
"""Bytes of a file that is imported."""

_LINE: Final = re.compile(r"([A-Za-z]+)\s*=\s*(.*)")
_RESERVED: Final = re.compile(r"#\s*(reserved)\s*=\s*(.*)", re.IGNORECASE)  # wg-quick knows no such name
_FLAT: Final = re.compile(r"([a-z_0-9]+): ?(.*)")
_SEVERAL: Final = {"address", "dns", "allowedips", "preup", "postup", "predown", "postdown"}


@dataclass(frozen=True, slots=True)
class Imported:
    """What a file holds. Without `device` the API has to be asked for it; without `access` nobody can."""

    form: str
    private_key: str = field(repr=False)
    access: Access | None = None
    device: JsonValue | None = field(default=None, repr=False)


def read_profile(data: bytes) -> Imported:
    """Detect the form and read it. Raises InvalidError, which never repeats a value."""
    if len(data) > MAX_FILE:
        raise InvalidError(f"larger than {MAX_FILE} bytes")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InvalidError("not text") from None
    if text.lstrip().startswith("{"):
        return _json(parse_json(text.encode()))
    if re.search(r"^\s*\[interface\]", text, re.IGNORECASE | re.MULTILINE):
        return _profile(text)
    if re.search(r"^access_token\s*=", text, re.MULTILINE):
        return _wgcf_account(text)
    lines = [_FLAT.fullmatch(line.strip()) for line in text.splitlines() if line.strip()]
    if lines and all(lines):
        return _flat(JsonValue({one[1]: _bare(one[2]) for one in lines if one}), "a registration's lines")
    raise InvalidError("neither a wgcf account, nor a WireGuard profile, nor a registration as JSON")


def _wgcf_account(text: str) -> Imported:
    try:
        fields = JsonValue(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        where = re.search(r"at line \d+", str(error))
        raise InvalidError(f"not TOML{(where and f' ({where[0]})') or ''}") from None
    except RecursionError:
        raise InvalidError("not TOML: nested too deeply") from None
    access = Access(fields.member("device_id").text(), fields.member("access_token").text())
    return Imported("a wgcf account", _private_key(fields.member("private_key")), access)


def _json(fields: JsonValue) -> Imported:
    if fields.member("config").value is None:
        return _flat(fields, "a registration as JSON")
    inner = fields.optional("account", lambda account: account.optional("private_key", _private_key))
    key = inner or _private_key(fields.member("private_key"))
    token = fields.optional("token", JsonValue.text)
    access = Access(fields.member("id").text(), token) if token else None
    return Imported("a device as JSON", key, access, fields)


def _flat(fields: JsonValue, form: str) -> Imported:
    where = fields.member("endpoint")
    endpoint = where.value if isinstance(where.value, dict) else _endpoint(where)
    client_id = fields.optional("client_id", JsonValue.text) or fields.optional(
        "reserved_str", JsonValue.text
    )
    if not client_id:
        octets = fields.optional("reserved", _octets) or fields.optional("reserved_dec", _octets)
        client_id = base64.b64encode(octets).decode() if octets else None
    identity = fields.optional("device_id", JsonValue.text) or fields.optional("id", JsonValue.text)
    token = fields.optional("token", JsonValue.text)
    kind = {"account_type": fields.member("account_type").value, "license": fields.member("license").value}
    device = _device(
        fields.member("public_key").value,
        endpoint,
        {"v4": fields.member("v4").value, "v6": fields.member("v6").value},
        client_id,
    )
    access = Access(identity, token) if identity and token else None
    named = {"id": identity, "token": token, "account": kind} if access else {}
    return Imported(form, _private_key(fields.member("private_key")), access, JsonValue({**device, **named}))


def _profile(text: str) -> Imported:
    sections = _sections(text)
    interface, peer = JsonValue(sections["interface"]), JsonValue(sections["peer"])
    if peer.member("presharedkey").value is not None:
        raise InvalidError("[Peer] PresharedKey: WARP has none")
    inner: dict[str, str] = {}
    for address in str(interface.member("address").value or "").split(","):
        if address.strip() and inner.setdefault("v6" if ":" in address else "v4", address.strip()) != (
            address.strip()
        ):
            raise InvalidError("[Interface] Address: more than one of a family")
    octets = interface.optional("reserved", _octets) or peer.optional("reserved", _octets)
    client_id = base64.b64encode(octets).decode() if octets else None
    device = _device(peer.member("publickey").value, _endpoint(peer.member("endpoint")), inner, client_id)
    return Imported(
        "a WireGuard profile", _private_key(interface.member("privatekey")), device=JsonValue(device)
    )


def _sections(text: str) -> dict[str, dict[str, str]]:
    """Read an ini file as `wg` does: names in any case, `#` comments, no line that is something else."""
    sections: dict[str, dict[str, str]] = {}
    current: dict[str, str] | None = None
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip()
        if not _RESERVED.fullmatch(line):
            line = line.partition("#")[0].strip()
        if not line:
            continue
        if line.startswith("["):
            name = line.strip("[]").lower()
            if name not in ("interface", "peer") or not line.endswith("]"):
                raise InvalidError(f"line {number}: expected [Interface] or [Peer]")
            if name in sections:
                raise InvalidError(f"line {number}: a second [{name.title()}]; WARP has one peer")
            current = sections[name] = {}
            continue
        match = _RESERVED.fullmatch(line) or _LINE.fullmatch(line)
        if not match or current is None:
            raise InvalidError(f"line {number}: expected {'[Interface]' if match else 'Name = value'}")
        key, value = match[1].lower(), match[2].strip()
        if key in current and key not in _SEVERAL:
            raise InvalidError(f"line {number}: {match[1]} is there twice")
        current[key] = f"{current[key]},{value}" if key in current else value
    for name in ("interface", "peer"):
        if name not in sections:
            raise InvalidError(f"no [{name.title()}]")
    return sections


def _device(
    peer: object, endpoint: Mapping[str, object], inner: Mapping[str, object], client_id: str | None
) -> dict[str, object]:
    """Return the API's own shape, so that one reader judges every account."""
    peers = [{"public_key": peer, "endpoint": endpoint}]
    return {"config": {"client_id": client_id, "peers": peers, "interface": {"addresses": inner}}}


def _endpoint(entry: JsonValue) -> dict[str, object]:
    try:
        endpoint = parse_endpoint(entry.text(), zero=None)
    except InvalidError:
        raise
    except ValueError as error:
        entry.reject(str(error))
    family = f"v{endpoint.address.version}" if isinstance(endpoint, Endpoint) else "host"
    return {family: str(endpoint)}


def _private_key(entry: JsonValue) -> str:
    entry.octets(32)
    return entry.text()


def _octets(entry: JsonValue) -> bytes:
    """Read three reserved bytes: a list, `1, 2, 3`, `[1, 2, 3]` or base64."""
    value = entry.value
    if isinstance(value, str):
        numbers = re.fullmatch(r"\[?\s*(\d{1,3})\s*,\s*(\d{1,3})\s*,\s*(\d{1,3})\s*\]?", value.strip())
        value = list(map(int, numbers.groups())) if numbers else _unpacked(value.strip())
    if not isinstance(value, list) or len(value) != 3:
        entry.reject("expected three bytes")
    if not all(isinstance(one, int) and 0 <= one <= 255 for one in value):
        entry.reject("expected three bytes")
    return bytes(value)


def _unpacked(text: str) -> list[int]:
    try:
        return list(base64.b64decode(text, validate=True))
    except (binascii.Error, ValueError):
        return []


def _bare(value: str) -> object:
    try:
        return json.loads(value) if value.startswith("[") else value or None
    except ValueError:
        return value


DNS: Final = "1.1.1.1, 1.0.0.1, 2606:4700:4700::1111, 2606:4700:4700::1001"


def profile(account: Account) -> str:
    """Return a WireGuard profile that wg-quick takes as it is; the reserved bytes are a comment in it."""
    endpoint = next(iter(account.endpoints), account.endpoint_name)
    lines = [
        "[Interface]",
        f"PrivateKey = {account.private_key}",
        f"Address = {', '.join(map(str, account.addresses))}",
        f"DNS = {DNS}",
        "MTU = 1280",
        "",
        "[Peer]",
        f"PublicKey = {account.peer_public_key}",
        "AllowedIPs = 0.0.0.0/0, ::/0",
        f"Endpoint = {endpoint}",
        "PersistentKeepalive = 25",
    ]
    if account.client_id:
        lines.append(f"# Reserved = {', '.join(map(str, account.client_id))}")
    return "\n".join(lines) + "\n"


def wgcf_account(account: Account) -> str | None:
    """Return wgcf-account.toml, None for an account without a token: wgcf could do nothing with it."""
    if account.access is None:
        return None
    members = {
        "access_token": account.access.token,
        "device_id": account.access.device_id,
        "license_key": account.license_key or "",
        "private_key": account.private_key,
    }
    # A JSON string of printable ASCII is a TOML one, too.
    return "".join(f"{name} = {json.dumps(value)}\n" for name, value in members.items())
