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

from entrypoint.warp.account import Access
from entrypoint.warp.endpoints import Endpoint, parse_endpoint
from entrypoint.warp.fields import Field, InvalidError, parsed

LARGEST: Final = 65536
"""Bytes of a file that is imported."""

_LINE: Final = re.compile(r"([A-Za-z]+)\s*=\s*(.*)")
_RESERVED: Final = re.compile(r"#\s*(reserved)\s*=\s*(.*)", re.IGNORECASE)  # wg-quick knows no such name
_FLAT: Final = re.compile(r"([a-z_0-9]+): ?(.*)")
_SEVERAL: Final = {"address", "dns", "allowedips"}


@dataclass(frozen=True, slots=True)
class Imported:
    """What a file holds. Without `device` the API has to be asked for it; without `access` nobody can."""

    form: str
    private_key: str = field(repr=False)
    access: Access | None = None
    device: Field | None = field(default=None, repr=False)


def read(data: bytes) -> Imported:
    """Detect the form and read it. Raises InvalidError, which never repeats a value."""
    if len(data) > LARGEST:
        raise InvalidError(f"larger than {LARGEST} bytes")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InvalidError("not text") from None
    if text.lstrip().startswith("{"):
        return _json(parsed(text.encode()))
    if re.search(r"^\s*\[interface\]", text, re.IGNORECASE | re.MULTILINE):
        return _profile(text)
    if re.search(r"^access_token\s*=", text, re.MULTILINE):
        return _wgcf_account(text)
    lines = [_FLAT.fullmatch(line.strip()) for line in text.splitlines() if line.strip()]
    if lines and all(lines):
        return _flat(Field({one[1]: _bare(one[2]) for one in lines if one}), "a registration's lines")
    raise InvalidError("neither a wgcf account, nor a WireGuard profile, nor a registration as JSON")


def _wgcf_account(text: str) -> Imported:
    try:
        fields = Field(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        where = re.search(r"at line \d+", str(error))
        raise InvalidError(f"not TOML{(where and f' ({where[0]})') or ''}") from None
    except RecursionError:
        raise InvalidError("not TOML: nested too deeply") from None
    access = Access(fields.at("device_id").text(), fields.at("access_token").text())
    return Imported("a wgcf account", _key(fields.at("private_key")), access)


def _json(fields: Field) -> Imported:
    if fields.at("config").value is None:
        return _flat(fields, "a registration as JSON")
    inner = fields.maybe("account", lambda account: account.maybe("private_key", _key))
    key = inner or _key(fields.at("private_key"))
    token = fields.maybe("token", Field.text)
    access = Access(fields.at("id").text(), token) if token else None
    return Imported("a device as JSON", key, access, fields)


def _flat(fields: Field, form: str) -> Imported:
    where = fields.at("endpoint")
    endpoint = where.value if isinstance(where.value, dict) else _endpoint(where)
    client_id = fields.maybe("client_id", Field.text) or fields.maybe("reserved_str", Field.text)
    if not client_id:
        octets = fields.maybe("reserved", _octets) or fields.maybe("reserved_dec", _octets)
        client_id = base64.b64encode(octets).decode() if octets else None
    identity = fields.maybe("device_id", Field.text) or fields.maybe("id", Field.text)
    token = fields.maybe("token", Field.text)
    kind = {"account_type": fields.at("account_type").value, "license": fields.at("license").value}
    device = _device(
        fields.at("public_key").value,
        endpoint,
        {"v4": fields.at("v4").value, "v6": fields.at("v6").value},
        client_id,
    )
    access = Access(identity, token) if identity and token else None
    named = {"id": identity, "token": token, "account": kind} if access else {}
    return Imported(form, _key(fields.at("private_key")), access, Field({**device, **named}))


def _profile(text: str) -> Imported:
    sections = _sections(text)
    interface, peer = Field(sections["interface"]), Field(sections["peer"])
    if peer.at("presharedkey").value is not None:
        raise InvalidError("[Peer] PresharedKey: WARP has none")
    inner: dict[str, str] = {}
    for address in str(interface.at("address").value or "").split(","):
        if address.strip() and inner.setdefault("v6" if ":" in address else "v4", address.strip()) != (
            address.strip()
        ):
            raise InvalidError("[Interface] Address: more than one of a family")
    octets = interface.maybe("reserved", _octets) or peer.maybe("reserved", _octets)
    client_id = base64.b64encode(octets).decode() if octets else None
    device = _device(peer.at("publickey").value, _endpoint(peer.at("endpoint")), inner, client_id)
    return Imported("a WireGuard profile", _key(interface.at("privatekey")), device=Field(device))


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


def _endpoint(entry: Field) -> dict[str, object]:
    try:
        endpoint = parse_endpoint(entry.text(), zero=None)
    except InvalidError:
        raise
    except ValueError as error:
        entry.refuse(str(error))
    family = f"v{endpoint.address.version}" if isinstance(endpoint, Endpoint) else "host"
    return {family: str(endpoint)}


def _key(entry: Field) -> str:
    entry.octets(32)
    return entry.text()


def _octets(entry: Field) -> bytes:
    """Read three reserved bytes: a list, `1, 2, 3`, `[1, 2, 3]` or base64."""
    value = entry.value
    if isinstance(value, str):
        numbers = re.fullmatch(r"\[?\s*(\d{1,3})\s*,\s*(\d{1,3})\s*,\s*(\d{1,3})\s*\]?", value.strip())
        value = list(map(int, numbers.groups())) if numbers else _unpacked(value.strip())
    if not isinstance(value, list) or len(value) != 3:
        entry.refuse("expected three bytes")
    if not all(isinstance(one, int) and 0 <= one <= 255 for one in value):
        entry.refuse("expected three bytes")
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
