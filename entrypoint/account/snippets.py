"""What other clients call a WireGuard outbound: Xray, sing-box, mihomo, share links. Read into one shape.

Each reader returns the API's device shape, so that one reader judges every account (see model.py).
"""

import base64
import binascii
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qs, unquote, urlsplit

from entrypoint.account.model import Access
from entrypoint.addresses import Endpoint, parse_endpoint
from entrypoint.strict_json import InvalidError, JsonValue

MASQUE = "its key is for MASQUE, not WireGuard: let ss-warp register, or import a WireGuard profile"


@dataclass(frozen=True, slots=True)
class Imported:
    """What a file holds. Without `device` the API has to be asked for it; without `access` no one can."""

    form: str
    private_key: str = field(repr=False)
    access: Access | None = None
    device: JsonValue | None = field(default=None, repr=False)


def read_json(fields: JsonValue) -> Imported:
    """Read JSON of any known form. Raises InvalidError."""
    inner = next(_wireguard_parts(fields.value), None)
    members = fields.value if isinstance(fields.value, dict) else {}
    if inner is not None:
        fields = JsonValue(inner)
        if "settings" in inner:
            return _named("an Xray outbound", _xray, fields)
        return _named("sing-box's WireGuard", _singbox, fields)
    if "endpoint_pub_key" in members:
        raise InvalidError(f"a usque configuration: {MASQUE}")
    if "registration_id" in members:
        return _named("the registration of Cloudflare's own client", _warp_cli, fields)
    if "access_token" in members and "device_id" in members:
        return _named("3x-ui's WARP account", read_account, fields)
    if members.get("config") is not None:
        return _named("a device as JSON", _device_object, fields)
    if "private_key" in members and "public_key" in members:
        return _named("a registration as JSON", read_flat, fields)
    raise InvalidError("JSON without a WireGuard key in a known form (Xray, sing-box, 3x-ui, warp-reg)")


def _named(form: str, read: Callable[[JsonValue, str], Imported], fields: JsonValue) -> Imported:
    try:
        return read(fields, form)
    except InvalidError as error:
        raise InvalidError(f"{form}: {error}") from None


def _wireguard_parts(value: object) -> Iterator[dict[str, object]]:
    """Yield the WireGuard outbounds and endpoints of a configuration, or of a part of one."""
    if isinstance(value, list):
        for entry in value:
            yield from _wireguard_parts(entry)
    elif isinstance(value, dict):
        if value.get("protocol") == "wireguard" or value.get("type") == "wireguard" or value.get("secretKey"):
            yield value if "settings" in value or "secretKey" not in value else {"settings": value}
        for name in ("outbounds", "endpoints"):
            if isinstance(value.get(name), list):
                yield from _wireguard_parts(value[name])


def _xray(fields: JsonValue, form: str) -> Imported:
    settings = fields.member("settings")
    peers = settings.member("peers").entries()
    peer = peers[0] if peers else settings.member("peers")
    octets = settings.optional("reserved", read_octets) or peer.optional("reserved", read_octets)
    return _imported(
        form,
        settings.member("secretKey"),
        peer.member("publicKey").value,
        read_endpoint(peer.member("endpoint")),
        _strings(settings.member("address")),
        octets,
    )


def _singbox(fields: JsonValue, form: str) -> Imported:
    # An endpoint since sing-box 1.11; before, an outbound with the peer's fields in itself.
    entries = fields.optional("peers", JsonValue.entries) or [fields]
    peer = entries[0]
    host = peer.optional("address", JsonValue.text) if peer is not fields else None
    host = host or fields.optional("server", JsonValue.text) or peer.member("server").text()
    port = (
        (peer.optional("port", JsonValue.number) if peer is not fields else None)
        or peer.optional("server_port", JsonValue.number)
        or fields.optional("server_port", JsonValue.number)
        or 2408
    )
    key = peer.optional("public_key", JsonValue.text) or fields.member("peer_public_key").text()
    octets = peer.optional("reserved", read_octets) or fields.optional("reserved", read_octets)
    inner = fields.member("local_address" if fields.member("local_address").value else "address")
    return _imported(form, fields.member("private_key"), key, _joined(host, port), _strings(inner), octets)


def _warp_cli(fields: JsonValue, form: str) -> Imported:
    access = Access(fields.member("registration_id").text(), fields.member("api_token").text())
    try:
        return Imported(form, _private_key(fields.member("secret_key")), access)
    except InvalidError:
        raise InvalidError(MASQUE) from None


def read_account(fields: JsonValue, form: str) -> Imported:
    """Read an id, a token and a key; the API has to be asked for the rest. Raises InvalidError."""
    access = Access(fields.member("device_id").text(), fields.member("access_token").text())
    return Imported(form, _private_key(fields.member("private_key")), access)


def _device_object(fields: JsonValue, form: str) -> Imported:
    inner = fields.optional("account", lambda account: account.optional("private_key", _private_key))
    key = inner or _private_key(fields.member("private_key"))
    token = fields.optional("token", JsonValue.text)
    access = Access(fields.member("id").text(), token) if token else None
    return Imported(form, key, access, fields)


def read_flat(fields: JsonValue, form: str) -> Imported:
    """Read what warp-reg and its like print: everything in one object. Raises InvalidError."""
    where = fields.member("endpoint")
    endpoint = where.value if isinstance(where.value, dict) else read_endpoint(where)
    client_id = fields.optional("client_id", JsonValue.text) or fields.optional(
        "reserved_str", JsonValue.text
    )
    if not client_id:
        octets = fields.optional("reserved", read_octets) or fields.optional("reserved_dec", read_octets)
        client_id = base64.b64encode(octets).decode() if octets else None
    identity = fields.optional("device_id", JsonValue.text) or fields.optional("id", JsonValue.text)
    token = fields.optional("token", JsonValue.text)
    kind = {"account_type": fields.member("account_type").value, "license": fields.member("license").value}
    inner = {"v4": fields.member("v4").value, "v6": fields.member("v6").value}
    device = device_shape(fields.member("public_key").value, endpoint, inner, client_id)
    access = Access(identity, token) if identity and token else None
    named = {"id": identity, "token": token, "account": kind} if access else {}
    return Imported(form, _private_key(fields.member("private_key")), access, JsonValue({**device, **named}))


_YAML = re.compile(r"(?:-\s+)?([A-Za-z][\w-]*)\s*:\s*(.*)")


def read_mihomo(text: str) -> Imported:
    """Read the first `type: wireguard` proxy of a mihomo (Clash) configuration. Raises InvalidError."""
    form = "mihomo's WireGuard proxy"
    for block in re.split(r"(?m)^\s*-\s", text.replace("{", "\n").replace("}", "\n")):
        # In flow style all is on one line; commas within brackets belong to a list.
        lines = [part for line in block.splitlines() for part in re.split(r",(?![^\[]*\])", line)]
        pairs = [match for line in lines if (match := _YAML.fullmatch(line.strip()))]
        fields = JsonValue({one[1]: bare(one[2].partition(" #")[0]) for one in pairs})
        if fields.member("type").value == "wireguard":
            return _named(form, _mihomo, fields)
    raise InvalidError("a YAML file without a WireGuard proxy")


def _mihomo(fields: JsonValue, form: str) -> Imported:
    inner = [str(fields.member(name).value) for name in ("ip", "ipv6") if fields.member(name).value]
    port = str(fields.member("port").value or 2408)
    endpoint = _joined(fields.member("server").text(), int(port) if port.isdecimal() else 2408)
    octets = fields.optional("reserved", read_octets)
    return _imported(
        form, fields.member("private-key"), fields.member("public-key").value, endpoint, inner, octets
    )


def read_link(text: str) -> Imported:
    """Read a `wireguard://key@host:port?…` link. Raises InvalidError."""
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port or 2408
    except ValueError:
        raise InvalidError("a link that cannot be read") from None
    given = parse_qs(parts.query).items()
    query = {name.lower().replace("_", "").replace("-", ""): values[0] for name, values in given}
    form = f"a {parts.scheme}:// link"
    key = unquote(parts.netloc.rpartition("@")[0]) or query.get("privatekey", "")
    if not key or not host:
        raise InvalidError(f"{form} without a private key: it only tells its own app to register")
    # In a query, + is a blank.
    public = (query.get("publickey") or query.get("peerpublickey") or "").replace(" ", "+")
    inner = (query.get("address") or query.get("localaddress") or query.get("ip") or "").split(",")
    fields = JsonValue({"key": key.replace(" ", "+"), "reserved": query.get("reserved")})
    try:
        octets = fields.optional("reserved", read_octets)
        return _imported(form, fields.member("key"), public, _joined(host, port), inner, octets)
    except InvalidError as error:
        raise InvalidError(f"{form}: {error}") from None


def _imported(
    form: str,
    key: JsonValue,
    peer: object,
    endpoint: Mapping[str, object],
    inner: list[str],
    octets: bytes | None,
) -> Imported:
    client_id = base64.b64encode(octets).decode() if octets else None
    device = device_shape(peer, endpoint, by_family(inner), client_id)
    return Imported(form, _private_key(key), device=JsonValue(device))


def by_family(addresses: list[str]) -> dict[str, str]:
    """Return the tunnel's addresses as v4 and v6. Raises InvalidError for two of a family."""
    found: dict[str, str] = {}
    for text in map(str.strip, addresses):
        if text and found.setdefault("v6" if ":" in text else "v4", text) != text:
            raise InvalidError("more than one tunnel address of a family")
    return found


def device_shape(
    peer: object, endpoint: Mapping[str, object], inner: Mapping[str, object], client_id: str | None
) -> dict[str, object]:
    """Return the API's own shape."""
    peers = [{"public_key": peer, "endpoint": endpoint}]
    return {"config": {"client_id": client_id, "peers": peers, "interface": {"addresses": inner}}}


def read_endpoint(entry: JsonValue) -> dict[str, object]:
    """Read `host[:port]` into the API's shape. Raises InvalidError."""
    try:
        endpoint = parse_endpoint(entry.text(), zero=None)
    except InvalidError:
        raise
    except ValueError as error:
        entry.reject(str(error))
    return {f"v{endpoint.address.version}" if isinstance(endpoint, Endpoint) else "host": str(endpoint)}


def read_octets(entry: JsonValue) -> bytes:
    """Read three reserved bytes: a list, `1, 2, 3`, `[1, 2, 3]` or base64. Raises InvalidError."""
    value = entry.value
    if isinstance(value, str):
        numbers = re.fullmatch(r"\[?\s*(\d{1,3})\s*,\s*(\d{1,3})\s*,\s*(\d{1,3})\s*\]?", value.strip())
        value = list(map(int, numbers.groups())) if numbers else _unpacked(value.strip())
    if not isinstance(value, list) or len(value) != 3:
        entry.reject("expected three bytes")
    if not all(isinstance(one, int) and 0 <= one <= 255 for one in value):
        entry.reject("expected three bytes")
    return bytes(value)


def bare(value: str) -> object:
    """Return a plain text value: a list where it is one, without quotes, None when empty."""
    value = value.strip()
    if value.startswith("["):
        try:
            listed: object = json.loads(value)
            return listed
        except ValueError:
            return value
    if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
        value = value[1:-1].strip()
    return value or None


def _joined(host: str, port: int) -> dict[str, object]:
    host = host.strip("[]")
    return read_endpoint(JsonValue(f"[{host}]:{port}" if ":" in host else f"{host}:{port}", "endpoint"))


def _strings(entry: JsonValue) -> list[str]:
    if isinstance(entry.value, str):
        return entry.value.split(",")
    return [one.text() for one in entry.entries()]


def _private_key(entry: JsonValue) -> str:
    entry.octets(32)
    return entry.text()


def _unpacked(text: str) -> list[int]:
    try:
        return list(base64.b64decode(text, validate=True))
    except (binascii.Error, ValueError):
        return []
