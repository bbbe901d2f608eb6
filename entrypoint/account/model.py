"""The account: its keys, how it is read from the API's device object, and the form it is kept in."""

import base64
import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface
from typing import Final, Literal

from nacl.bindings import crypto_scalarmult_base
from nacl.utils import random

from entrypoint.account.strict_json import JsonValue
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

type Kind = Literal["free", "plus", "team", "imported"]
KINDS: Final[tuple[Kind, ...]] = ("free", "plus", "team", "imported")

_TYPES: Final[dict[str, Kind]] = {"limited": "plus", "unlimited": "plus", "plus": "plus", "team": "team"}
_IDENTIFIER: Final = re.compile(r"[A-Za-z0-9._-]{1,128}")  # it becomes part of URLs


@dataclass(frozen=True, slots=True)
class Access:
    """What the API wants to see for everything it does with a device: its id, and the token."""

    device_id: str
    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Account:
    """One registered device. Keys are base64; what is secret does not show in its repr.

    Without `access` (imported from a WireGuard profile) it connects and nothing else. `endpoints` are
    the answer's addresses, IPv4 first, one a family; `ports` the ones it lists, empty when it lists
    none. `v4` and `v6` are the tunnel's own addresses. `client_id` is the three reserved bytes. At
    least one tunnel address and one endpoint (or its name) is there.
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


def new_private_key() -> str:
    """Return a new X25519 private key, clamped as `wg genkey` does, so that every engine shows the same."""
    key = bytearray(random(32))
    key[0] &= 248
    key[31] = key[31] & 127 | 64
    return base64.b64encode(key).decode()


def public_key(private_key: str) -> str:
    """Return the public key that belongs to `private_key`."""
    return base64.b64encode(crypto_scalarmult_base(base64.b64decode(private_key))).decode()


def parse_account(
    device: JsonValue,
    *,
    private_key: str,
    created: datetime,
    own: Collection[Address] = (),
    kind: Kind | None = None,
    token: str | None = None,
) -> Account:
    """Read a device object (warp-api 1.7) as hostile input.

    `own` are this machine's addresses, which it may not name. Only a registration's answer has a
    token: for later ones `token` is handed in. `kind` is what the account says, unless it is given.
    Raises InvalidError.
    """
    for protocol in (
        device.maybe("policy", lambda it: it.maybe("tunnel_protocol", JsonValue.text)),
        device.maybe("tunnel_type", JsonValue.text),
    ):
        if protocol == "masque":
            device.refuse("this device must use MASQUE, ss-warp speaks WireGuard")
    config = device.at("config")
    peers = config.at("peers")
    if not peers.entries():
        peers.refuse("no peer")
    peer = peers.entries()[0]
    where, inner = peer.at("endpoint"), config.at("interface").at("addresses")
    v4 = where.maybe("v4", partial(_endpoint, version=4, own=own))
    v6 = where.maybe("v6", partial(_endpoint, version=6, own=own))
    account = Account(
        kind=kind or kind_of(device),
        access=_access(device, token, kind),
        private_key=private_key,
        license_key=device.maybe("account", lambda account: account.maybe("license", JsonValue.text)),
        peer_public_key=_peer_key(peer.at("public_key"), private_key),
        endpoints=tuple(endpoint for endpoint in (v4, v6) if endpoint),
        endpoint_name=where.maybe("host", _name),
        ports=where.maybe("ports", lambda ports: tuple(_port(entry) for entry in ports.entries())) or (),
        v4=inner.maybe("v4", lambda v4: _tunnel_address(v4, v4.address(IPv4Address), own)),
        v6=inner.maybe("v6", lambda v6: _tunnel_address(v6, v6.address(IPv6Address), own)),
        client_id=config.maybe("client_id", lambda client_id: client_id.octets(3)),
        created=created,
    )
    if not (account.endpoints or account.endpoint_name):
        where.refuse("no address and no host name")
    if not account.addresses:
        inner.refuse("no address")
    return account


def kind_of(device: JsonValue) -> Kind:
    """Return the kind of account that a device object names (warp-api 2.3, 3)."""
    name = device.maybe("account", lambda account: account.maybe("account_type", JsonValue.text))
    return _TYPES.get(name or "", "free")


def to_json(account: Account) -> dict[str, object]:
    """Return what is kept of `account`: the API's own shape, so that one reader judges both."""
    endpoints = {f"v{endpoint.address.version}": str(endpoint) for endpoint in account.endpoints}
    host = account.endpoint_name and str(account.endpoint_name)
    peer = {
        "public_key": account.peer_public_key,
        "endpoint": {**endpoints, "host": host, "ports": list(account.ports)},
    }
    inner = {f"v{address.version}": str(address.ip) for address in account.addresses}
    client_id = account.client_id and base64.b64encode(account.client_id).decode()
    return {
        "kind": account.kind,
        "private_key": account.private_key,
        "created": account.created.isoformat(),
        "device": {
            "id": account.access and account.access.device_id,
            "token": account.access and account.access.token,
            "account": {"license": account.license_key},
            "config": {"client_id": client_id, "peers": [peer], "interface": {"addresses": inner}},
        },
    }


def from_json(kept: JsonValue) -> Account:
    """Read what `to_json` returned. Raises InvalidError."""
    kept.at("private_key").octets(32)
    return parse_account(
        kept.at("device"),
        private_key=kept.at("private_key").text(),
        created=_moment(kept.at("created")),
        kind=_kind(kept.at("kind")),
    )


def _parse_endpoint(entry: JsonValue) -> Endpoint | NamedEndpoint:
    text = entry.text()
    try:
        return parse_endpoint(text, zero=DEFAULT_PORT)
    except ValueError as error:
        entry.refuse(str(error))


def _endpoint(entry: JsonValue, version: Literal[4, 6], own: Collection[Address]) -> Endpoint:
    endpoint = _parse_endpoint(entry)
    if not isinstance(endpoint, Endpoint) or endpoint.address.version != version:
        entry.refuse(f"expected an IPv{version} address with a port")
    if word := word_for(endpoint.address):
        entry.refuse(f"{endpoint.address} is {word}")
    if endpoint.address in own:
        entry.refuse(f"{endpoint.address} is this machine's own")
    return endpoint


def _name(entry: JsonValue) -> NamedEndpoint:
    name = _parse_endpoint(entry)
    if not isinstance(name, NamedEndpoint):
        entry.refuse("expected a host name")
    return name


def _port(entry: JsonValue) -> int:
    port = entry.number() or DEFAULT_PORT
    if not 1 <= port <= 65535:
        entry.refuse("expected a port in 1..65535")
    return port


def _peer_key(entry: JsonValue, private_key: str) -> str:
    if not any(entry.octets(32)):
        entry.refuse("all zero")
    if entry.text() == public_key(private_key):
        entry.refuse("it is our own")
    return entry.text()


def _tunnel_address[T: (IPv4Address, IPv6Address)](
    entry: JsonValue, address: T, own: Collection[Address]
) -> T:
    # Private is usual here: 172.16.0.2 for every consumer device.
    if (word := word_for(address)) and not any(address in network for network in PRIVATE):
        entry.refuse(f"{address} is {word}")
    # An IPv4 address that this machine has is translated on the tunnel: every consumer device shares it.
    if address in own and address.version == 6:
        entry.refuse(f"{address} is this machine's own")
    return address


def _access(device: JsonValue, token: str | None, kind: Kind | None) -> Access | None:
    if kind == "imported" and device.at("token").value is None:
        return None
    return Access(_identifier(device.at("id")), token or device.at("token").text())


def _identifier(entry: JsonValue) -> str:
    if not _IDENTIFIER.fullmatch(entry.text()):
        entry.refuse("expected letters, digits, dots and dashes")
    return entry.text()


def _kind(entry: JsonValue) -> Kind:
    kind = next((kind for kind in KINDS if kind == entry.text()), None)
    return kind or entry.refuse(f"expected one of {', '.join(KINDS)}")


def _moment(entry: JsonValue) -> datetime:
    try:
        moment = datetime.fromisoformat(entry.text())
    except ValueError:
        entry.refuse("expected a time")
    if moment.tzinfo is None:
        entry.refuse("expected a time with its offset")
    return moment


OFFICIAL_PORTS: Final = (DEFAULT_PORT, 500, 1701, 4500)
"""The ports Cloudflare documents for WireGuard (warp-api 5.1), the usual one first."""


def candidates(
    account: "Account",
    configured: Iterable[Endpoint | NamedEndpoint] = (),
    families: Collection[Literal[4, 6]] = (4, 6),
) -> tuple[Endpoint | NamedEndpoint, ...]:
    """Return what to try, best first, without doubles; only addresses of `families` (of the uplinks).

    `configured` is the user's and replaces all of the account's. Else: the answer's IPv4 and IPv6
    endpoint, the same addresses on the other ports, then the answer's host name on each port.
    """
    wanted = tuple(configured) or tuple(_named_by(account))
    return tuple(
        dict.fromkeys(e for e in wanted if isinstance(e, NamedEndpoint) or e.address.version in families)
    )


def _named_by(account: "Account") -> Iterator[Endpoint | NamedEndpoint]:
    yield from account.endpoints
    ports = account.ports or OFFICIAL_PORTS
    for port in ports:
        for endpoint in account.endpoints:
            yield Endpoint(endpoint.address, port)
    if account.endpoint_name:
        yield account.endpoint_name
        for port in ports:
            yield NamedEndpoint(account.endpoint_name.name, port)
