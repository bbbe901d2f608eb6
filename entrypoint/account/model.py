"""The account: its keys, how it is read from the API's device object, and the form it is stored in."""

import base64
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface
from typing import Literal

from nacl.bindings import crypto_scalarmult_base
from nacl.utils import random

from entrypoint.addresses import (
    DEFAULT_PORT,
    PRIVATE,
    Address,
    Endpoint,
    Interface,
    NamedEndpoint,
    parse_endpoint,
    word_for,
)
from entrypoint.strict_json import JsonValue

type Kind = Literal["free", "plus", "team", "imported"]
KINDS: tuple[Kind, ...] = ("free", "plus", "team", "imported")

OFFICIAL_PORTS = (DEFAULT_PORT, 500, 1701, 4500)
"""The ports Cloudflare documents for WireGuard, the usual one first."""

_TYPES: dict[str, Kind] = {
    "free": "free",
    "limited": "plus",
    "unlimited": "plus",
    "plus": "plus",
    "team": "team",
}
LONGEST_TOKEN = 4096
MOST_ENDPOINTS = 6
"""Addresses of the edge that are remembered, the newest first."""

_IDENTIFIER = re.compile(r"[A-Za-z0-9._-]{1,128}")  # it becomes part of URLs


@dataclass(frozen=True, slots=True)
class Access:
    """A device's id, and the token that the API wants with every call about it."""

    device_id: str
    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Account:
    """One registered device. Keys are base64; secrets do not show in its repr.

    Without `access` (imported from a WireGuard profile) it connects and nothing else. `endpoints` are
    the addresses of the latest answer, IPv4 first, then those of earlier ones; `ports` the ones it lists,
    empty when it lists none. `v4` and `v6` are the tunnel's own addresses. `client_id` is the three
    reserved bytes. At least one tunnel address and one endpoint (or its name) is given.
    """

    kind: Kind
    access: Access | None
    private_key: str = field(repr=False)
    license_key: str | None = field(repr=False)
    peer_public_key: str
    endpoints: tuple[Endpoint, ...]
    endpoint_name: NamedEndpoint | None
    ports: tuple[int, ...]
    v4: IPv4Address | None
    v6: IPv6Address | None
    client_id: bytes | None
    created: datetime

    @property
    def addresses(self) -> tuple[Interface, ...]:
        """The tunnel's own addresses as they are put on wg0: /32 and /128, whatever prefix the API named."""
        v4 = (IPv4Interface(self.v4),) if self.v4 else ()
        v6 = (IPv6Interface(self.v6),) if self.v6 else ()
        return (*v4, *v6)

    def endpoints_to_try(
        self,
        configured: Iterable[Endpoint | NamedEndpoint] = (),
        families: Collection[Literal[4, 6]] = (4, 6),
    ) -> tuple[Endpoint | NamedEndpoint, ...]:
        """Return what to try, best first, without doubles; only addresses of `families` (of the uplinks).

        `configured` is the user's and replaces all of the account's. Otherwise: the answer's IPv4 and IPv6
        endpoint, the same addresses on the other ports, then the answer's host name on each port.
        """
        all_of_them = tuple(configured) or tuple(self._own_endpoints())
        return tuple(
            dict.fromkeys(
                one
                for one in all_of_them
                if isinstance(one, NamedEndpoint) or one.address.version in families
            )
        )

    def _own_endpoints(self) -> Iterator[Endpoint | NamedEndpoint]:
        yield from self.endpoints
        ports = self.ports or OFFICIAL_PORTS
        # Another port of the same address helps against a blocked port, the name against a blocked address.
        for port in ports:
            for endpoint in self.endpoints:
                yield Endpoint(endpoint.address, port)
        if self.endpoint_name:
            yield self.endpoint_name
            for port in ports:
                yield NamedEndpoint(self.endpoint_name.name, port)


def new_private_key() -> str:
    """Return a new X25519 private key, clamped as `wg genkey` does, so that every engine shows the same."""
    key = bytearray(random(32))
    key[0] &= 248
    key[31] = key[31] & 127 | 64
    return base64.b64encode(key).decode()


def public_key(private_key: str) -> str:
    """Return the public key that belongs to `private_key`."""
    return base64.b64encode(crypto_scalarmult_base(base64.b64decode(private_key))).decode()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    """What one answer says of a device; None and empty: nothing."""

    kind: Kind | None
    license_key: str | None
    peer_public_key: str | None
    endpoints: tuple[Endpoint, ...]
    endpoint_name: NamedEndpoint | None
    ports: tuple[int, ...]
    v4: IPv4Address | None
    v6: IPv6Address | None
    client_id: bytes | None


def parse_account(
    device: JsonValue,
    *,
    private_key: str,
    created: datetime,
    own: Collection[Address] = (),
    kind: Kind | None = None,
    access: Access | None = None,
    warn: Callable[[str], object] = lambda problem: None,
) -> Account:
    """Read the API's device object as hostile input.

    `own` are this machine's addresses, which it may not name. Without `access` the object has to have an
    id and a token, unless `kind` says that it is imported. `kind` is what the account says, unless it is
    given. A part that is wrong and not needed to connect is left out, and named to `warn`. Raises
    InvalidError.
    """
    problems: list[str] = []
    seen = _read(device, private_key, own, problems.append)
    config = device.member("config")
    if seen.peer_public_key is None:
        config.member("peers").reject(problems[0] if problems else "no usable peer")
    if not (seen.endpoints or seen.endpoint_name):
        config.member("peers").reject("; ".join(["no usable endpoint", *problems]))
    if not (seen.v4 or seen.v6):
        config.member("interface").reject("; ".join(["no usable address", *problems]))
    for problem in problems:
        warn(problem)
    if access is None and not (kind == "imported" and device.member("token").value is None):
        access = access_in(device)
    return Account(
        kind=kind or seen.kind or "free",
        access=access,
        private_key=private_key,
        license_key=seen.license_key,
        peer_public_key=seen.peer_public_key,
        endpoints=seen.endpoints,
        endpoint_name=seen.endpoint_name,
        ports=seen.ports,
        v4=seen.v4,
        v6=seen.v6,
        client_id=seen.client_id,
        created=created,
    )


def reread(account: Account, device: JsonValue, own: Collection[Address]) -> Account:
    """Return the account with what a later answer adds to it: nothing is ever taken away.

    Keys, token and age stay; so do the kind and licence of an enrolled or imported device. New endpoints
    come before the known ones. Raises InvalidError when the device has to use MASQUE.
    """
    seen = _read(device, account.private_key, own, lambda problem: None)
    fixed = account.kind in ("team", "imported")
    return replace(
        account,
        kind=account.kind if fixed else seen.kind or account.kind,
        license_key=account.license_key if fixed else seen.license_key or account.license_key,
        peer_public_key=seen.peer_public_key or account.peer_public_key,
        endpoints=tuple(dict.fromkeys((*seen.endpoints, *account.endpoints)))[:MOST_ENDPOINTS],
        endpoint_name=seen.endpoint_name or account.endpoint_name,
        ports=seen.ports or account.ports,
        v4=seen.v4 or account.v4,
        v6=seen.v6 or account.v6,
        client_id=seen.client_id or account.client_id,
    )


def access_in(device: JsonValue) -> Access:
    """Read a device's id and token. Raises InvalidError."""
    identifier = device.member("id")
    if not _IDENTIFIER.fullmatch(identifier.text()):
        identifier.reject("expected letters, digits, dots and dashes")
    return Access(identifier.text(), device.member("token").text(most=LONGEST_TOKEN))


def uses_masque(device: JsonValue) -> bool:
    """Return whether the device has to connect by MASQUE, which is not WireGuard. Raises InvalidError."""
    policy = device.member("policy").value
    protocol = policy.get("tunnel_protocol") if isinstance(policy, dict) else None
    return "masque" in (device.member("tunnel_type").value, protocol)


def kind_of(device: JsonValue) -> Kind | None:
    """Return the kind of account that a device object names, None when it names none."""
    return device.optional("account", lambda account: account.optional("account_type", _account_type))


def _read(
    device: JsonValue, private_key: str, own: Collection[Address], warn: Callable[[str], object]
) -> _Seen:
    """Read everything that is there. Raises InvalidError for an object that is no device at all."""
    if uses_masque(device):
        device.reject("this device must use MASQUE, ss-warp speaks WireGuard")
    config = device.member("config")
    peers = config.optional("peers", JsonValue.entries) or []
    readable = (peer for peer in peers if peer.tolerated("public_key", partial(_peer_key, private_key), warn))
    peer = next(readable, JsonValue({}, "config.peers[0]"))
    where = peer.optional("endpoint", JsonValue.itself) or JsonValue({}, f"{peer.path}.endpoint")
    interface = config.optional("interface", lambda it: it.optional("addresses", JsonValue.itself))
    inner = interface or JsonValue({}, "config.interface.addresses")
    account = device.tolerated("account", JsonValue.itself, warn) or JsonValue({}, "account")
    v4 = where.tolerated("v4", partial(_endpoint, version=4, own=own), warn)
    v6 = where.tolerated("v6", partial(_endpoint, version=6, own=own), warn)
    ports = where.tolerated("ports", lambda ports: tuple(map(_port, ports.entries())), warn)
    return _Seen(
        kind=account.tolerated("account_type", _account_type, warn),
        license_key=account.tolerated("license", JsonValue.text, warn),
        peer_public_key=peer.optional("public_key", JsonValue.text),
        endpoints=tuple(endpoint for endpoint in (v4, v6) if endpoint),
        endpoint_name=where.tolerated("host", _name, warn),
        ports=ports or (),
        v4=inner.tolerated("v4", lambda v4: _tunnel_address(v4, v4.address(IPv4Address), own), warn),
        v6=inner.tolerated("v6", lambda v6: _tunnel_address(v6, v6.address(IPv6Address), own), warn),
        client_id=config.tolerated("client_id", _client_id, warn),
    )


def to_json(account: Account) -> dict[str, object]:
    """Return what is stored of `account`: the API's own shape, so that one reader judges both."""
    first = {f"v{endpoint.address.version}": endpoint for endpoint in reversed(account.endpoints)}
    host = account.endpoint_name and str(account.endpoint_name)
    peer = {
        "public_key": account.peer_public_key,
        "endpoint": {
            **{family: str(endpoint) for family, endpoint in sorted(first.items())},
            "host": host,
            "ports": list(account.ports),
        },
    }
    inner = {f"v{address.version}": str(address.ip) for address in account.addresses}
    client_id = account.client_id and base64.b64encode(account.client_id).decode()
    earlier = [str(one) for one in account.endpoints if one not in first.values()]
    return {
        "kind": account.kind,
        "private_key": account.private_key,
        "created": account.created.isoformat(),
        **({"earlier_endpoints": earlier} if earlier else {}),
        "device": {
            "id": account.access and account.access.device_id,
            "token": account.access and account.access.token,
            "account": {"license": account.license_key},
            "config": {"client_id": client_id, "peers": [peer], "interface": {"addresses": inner}},
        },
    }


def from_json(stored: JsonValue) -> Account:
    """Read what `to_json` returned. Raises InvalidError."""
    account = parse_account(
        stored.member("device"),
        private_key=private_key_in(stored.member("private_key")),
        created=_moment(stored.member("created")),
        kind=kind_in(stored.member("kind")),
    )
    earlier = stored.optional("earlier_endpoints", JsonValue.entries) or []
    return replace(account, endpoints=(*account.endpoints, *filter(None, map(_endpoint, earlier))))


def private_key_in(entry: JsonValue) -> str:
    """Read a private key. Raises InvalidError."""
    entry.octets(32)
    return entry.text()


def kind_in(entry: JsonValue) -> Kind:
    """Read the kind of an account, as `to_json` wrote it. Raises InvalidError."""
    kind = next((kind for kind in KINDS if kind == entry.text()), None)
    return kind or entry.reject(f"expected one of {', '.join(KINDS)}")


def _parse_endpoint(entry: JsonValue) -> Endpoint | NamedEndpoint:
    text = entry.text()
    try:
        return parse_endpoint(text, zero=DEFAULT_PORT)
    except ValueError as error:
        entry.reject(str(error))


def _endpoint(
    entry: JsonValue, version: Literal[4, 6] | None = None, own: Collection[Address] = ()
) -> Endpoint | None:
    endpoint = _parse_endpoint(entry)
    if not isinstance(endpoint, Endpoint) or version not in (None, endpoint.address.version):
        entry.reject(f"expected an IPv{version} address with a port")
    if endpoint.address.is_unspecified:
        return None  # `[::]:0`: the API's way to say that it has none
    if word := word_for(endpoint.address):
        entry.reject(f"{endpoint.address} is {word}")
    if endpoint.address in own:
        entry.reject(f"{endpoint.address} is this machine's own")
    return endpoint


def _name(entry: JsonValue) -> NamedEndpoint:
    name = _parse_endpoint(entry)
    if not isinstance(name, NamedEndpoint):
        entry.reject("expected a host name")
    return name


def _port(entry: JsonValue) -> int:
    text = entry.value
    number = JsonValue(int(text), entry.path) if isinstance(text, str) and text.isdecimal() else entry
    port = number.number() or DEFAULT_PORT
    if not 1 <= port <= 65535:
        entry.reject("expected a port in 1..65535")
    return port


def _peer_key(private_key: str, entry: JsonValue) -> str:
    if not any(entry.octets(32)):
        entry.reject("all zero")
    if entry.text() == public_key(private_key):
        entry.reject("it is our own")
    return entry.text()


def _tunnel_address[T: (IPv4Address, IPv6Address)](
    entry: JsonValue, address: T, own: Collection[Address]
) -> T:
    # Private is usual here: 172.16.0.2 for every consumer device.
    if (word := word_for(address)) and not any(address in network for network in PRIVATE):
        entry.reject(f"{address} is {word}")
    # An IPv4 address that this machine has is translated on the tunnel: every consumer device shares it.
    if address in own and address.version == 6:
        entry.reject(f"{address} is this machine's own")
    return address


def _client_id(entry: JsonValue) -> bytes:
    return JsonValue(entry.text().replace("-", "+").replace("_", "/"), entry.path).octets(3)


def _account_type(entry: JsonValue) -> Kind:
    """Read the API's word, however it is written: `unlimited`, `WARP Plus`."""
    if not isinstance(entry.value, str):
        entry.reject("expected a string")
    word = "".join(filter(str.isalpha, entry.value.lower())).removeprefix("warp")
    return _TYPES.get(word) or entry.reject("not a known kind of account")


def _moment(entry: JsonValue) -> datetime:
    try:
        moment = datetime.fromisoformat(entry.text())
    except ValueError:
        entry.reject("expected a time")
    if moment.tzinfo is None:
        entry.reject("expected a time with its offset")
    return moment
