"""Endpoints: where the WireGuard peer listens, and in which order to try."""

import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from entrypoint.warp.account import Account

DEFAULT_PORT: Final = 2408
OFFICIAL_PORTS: Final = (DEFAULT_PORT, 500, 1701, 4500)
"""The ports Cloudflare documents for WireGuard (warp-api 5.1), the usual one first."""

_LABEL = r"(?!-)[a-z0-9-]{1,63}(?<!-)"
_NAME: Final = re.compile(rf"(?=.{{1,253}}$){_LABEL}(\.{_LABEL})*\.?", re.IGNORECASE | re.ASCII)
_SPLIT: Final = re.compile(
    r"(?:\[(?P<v6>[^\[\]]*)\]|(?P<host>[^:\[\]]*))(?::(?P<port>[0-9]{1,5}))?", re.ASCII
)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An address and a UDP port."""

    address: IPv4Address | IPv6Address
    port: int

    def __str__(self) -> str:
        host = f"[{self.address}]" if self.address.version == 6 else str(self.address)
        return f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class NamedEndpoint:
    """A host name and a UDP port; whoever uses it resolves it first."""

    name: str
    port: int

    def __str__(self) -> str:
        return f"{self.name}:{self.port}"


def parse_endpoint(text: str, *, zero: int | None = None) -> Endpoint | NamedEndpoint:
    """Read `host[:port]`, `v4[:port]`, `[v6]:port` or a bare IPv6 address; without a port it is 2408.

    `zero` is what port 0 means (the real API sends it for "the default"). Raises ValueError with a
    sentence that does not repeat `text`.
    """
    if text.count(":") > 1 and "[" not in text:
        return Endpoint(_v6(text), DEFAULT_PORT)
    if not (parts := _SPLIT.fullmatch(text)):
        raise ValueError("expected host[:port] or [v6]:port")
    port = DEFAULT_PORT if parts["port"] is None else int(parts["port"])
    if port == 0 and zero is not None:
        port = zero
    if not 1 <= port <= 65535:
        raise ValueError(f"port {port} is not in 1..65535")
    if parts["v6"] is not None:
        return Endpoint(_v6(parts["v6"]), port)
    host = parts["host"]
    if re.fullmatch(r"[0-9.]+", host):  # never a name: resolvers would read 127.1 as an address
        try:
            return Endpoint(IPv4Address(host), port)
        except ValueError:
            raise ValueError("not an IPv4 address") from None
    if not _NAME.fullmatch(host):
        raise ValueError("not a host name")
    return NamedEndpoint(host.lower().rstrip("."), port)


def _v6(text: str) -> IPv6Address:
    try:
        address = ip_address(text)
    except ValueError:
        raise ValueError("not an IPv6 address") from None
    if not isinstance(address, IPv6Address) or address.scope_id is not None:
        raise ValueError("not an IPv6 address")
    return address


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
