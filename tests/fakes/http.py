"""The Http door without a network: servers at addresses, a DNS, holes in a firewall.

A connection needs a server at the address and, for marked sockets, an open hole; the request's body
is read only after that, as on a wire; response bodies come as streams.
"""

import ssl
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path

import httpx

from entrypoint.addresses import Address, Destination, Endpoint
from entrypoint.linux.world import Bound, Marked

type Site = (
    Callable[[httpx.Request], httpx.Response]
    | Callable[[httpx.Request], Coroutine[None, None, httpx.Response]]
)

API = ip_address("203.0.113.80")
DNS = ip_address("203.0.113.53")


@dataclass
class Holes:
    """A firewall that stops marked packets unless a hole is open, and remembers every hole there was."""

    open: list[Destination] = field(default_factory=list)
    history: list[frozenset[Destination]] = field(default_factory=list)
    connections: int = 0

    @asynccontextmanager
    async def reach(self, destinations: frozenset[Destination]) -> AsyncIterator[None]:
        self.history.append(destinations)
        self.open.extend(destinations)
        try:
            yield
        finally:
            assert not self.connections, "a hole closes under an open connection"
            for destination in destinations:
                self.open.remove(destination)


@dataclass(frozen=True)
class Connected:
    """One connection that was made."""

    way: Marked | Bound
    address: Address
    host: str
    port: int
    ca_file: Path | None
    newest: ssl.TLSVersion | None = None


class FakeHttp:
    """Sites by address; names by the DNS servers in `dns` (name to addresses)."""

    def __init__(
        self,
        sites: Mapping[Address, Site],
        dns: Mapping[Address, Mapping[str, Sequence[Address]]] | None = None,
        holes: Holes | None = None,
    ) -> None:
        self.sites = dict(sites)
        self.dns = {server: dict(names) for server, names in (dns or {}).items()}
        self.holes = holes
        self.connected: list[Connected] = []
        self.lookups: list[str] = []
        self.rejected: dict[Address, OSError] = {}
        """Where a router on the way rejects datagrams."""

    def may(self, way: Marked | Bound, destination: Destination) -> bool:
        return self.holes is None or isinstance(way, Bound) or destination in self.holes.open

    def transport(
        self,
        way: Marked | Bound,
        addresses: Sequence[Address],
        ca_file: Path | None = None,
        *,
        newest: ssl.TLSVersion | None = None,
    ) -> httpx.AsyncBaseTransport:
        if ca_file is not None and not ca_file.exists():
            raise FileNotFoundError(2, "No such file or directory")
        return _Transport(self, way, tuple(addresses), ca_file, newest)

    async def lookup(
        self, name: str, servers: Sequence[Address], way: Marked | Bound, *, limit: float = 5.0
    ) -> tuple[Address, ...]:
        self.lookups.append(name)
        for server in servers:
            if self.may(way, Destination(server, 53, "udp")) and (
                found := self.dns.get(server, {}).get(name)
            ):
                return tuple(sorted(found, key=lambda address: address.version))
        raise OSError(f"no DNS server has an address for {name}")

    async def ask(self, server: Address, name: str, way: Marked | Bound, *, limit: float) -> None:
        self.lookups.append(name)
        if server not in self.dns or not self.may(way, Destination(server, 53, "udp")):
            raise TimeoutError

    async def knock(self, endpoint: Endpoint, way: Marked | Bound, *, limit: float) -> None:
        if error := self.rejected.get(endpoint.address):
            raise error


class _Transport(httpx.AsyncBaseTransport):
    def __init__(
        self,
        door: FakeHttp,
        way: Marked | Bound,
        addresses: tuple[Address, ...],
        ca_file: Path | None,
        newest: ssl.TLSVersion | None,
    ) -> None:
        self.newest = newest
        self.door, self.way, self.addresses, self.ca_file = door, way, addresses, ca_file
        self.alive = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        port = request.url.port or 443
        for address in self.addresses:
            if address in self.door.sites and self.door.may(self.way, Destination(address, port, "tcp")):
                break
        else:
            raise httpx.ConnectError("; ".join(f"{a}: Connection refused" for a in self.addresses))
        self.door.connected.append(
            Connected(self.way, address, request.url.host, port, self.ca_file, self.newest)
        )
        self.alive += 1
        if self.door.holes:
            self.door.holes.connections += 1
        request.extensions = {**request.extensions, "way": self.way}
        answer = await httpx.MockTransport(self.door.sites[address]).handle_async_request(request)
        if not answer.is_stream_consumed:
            return answer
        return httpx.Response(answer.status_code, headers=answer.headers, stream=Slices(answer.content))

    async def aclose(self) -> None:
        if self.door.holes:
            self.door.holes.connections -= self.alive
        self.alive = 0


class Slices(httpx.AsyncByteStream):
    """A body that comes in pieces and, if told so, ends in an error."""

    def __init__(self, body: bytes, error: Exception | None = None) -> None:
        self.body, self.error = body, error

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for start in range(0, len(self.body), 4096):
            yield self.body[start : start + 4096]
        if self.error:
            raise self.error
