"""A small DNS client on marked or bound sockets; dnspython makes and reads the messages."""

import socket
import ssl
import struct
from collections.abc import Iterable, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import anyio
import dns.flags
import dns.message
import dns.rdataclass
import dns.rdatatype
import httpcore
import httpx
from anyio.abc import SocketStream
from httpcore._backends.anyio import AnyIOStream

from entrypoint.addresses import Endpoint
from entrypoint.linux.sockets import Address, connect, connected, open_socket
from entrypoint.linux.world import Bound, Http, Marked

PORT = 53
MAX_UDP = 1232
"""Bytes of a UDP answer that cross every path unfragmented (DNS flag day 2020); also what fits MTU 1280."""


async def look_up(
    name: str, servers: Sequence[Address], way: Marked | Bound, limit: float
) -> tuple[Address, ...]:
    """Return the addresses of `name`, IPv4 first; the first server that knows one decides.

    An IP literal is returned as it is. `limit` is in seconds, per server. Raises OSError when no
    server has an address.
    """
    try:
        return (ip_address(name),)
    except ValueError:
        pass
    found: dict[dns.rdatatype.RdataType, list[Address]] = {}

    async def one(server: Address, kind: dns.rdatatype.RdataType) -> None:
        query = dns.message.make_query(name, kind, use_edns=True, payload=MAX_UDP)
        try:
            found[kind] = _addresses(await _exchange(query, server, way, limit), kind)
        except OSError:
            found[kind] = []

    for server in servers:
        async with anyio.create_task_group() as tasks:
            for kind in (dns.rdatatype.A, dns.rdatatype.AAAA):
                tasks.start_soon(one, server, kind)
        addresses = [*found[dns.rdatatype.A], *found[dns.rdatatype.AAAA]]
        if addresses:
            return tuple(addresses)
    raise OSError(f"no DNS server has an address for {name}")


async def query_once(server: Address, name: str, way: Marked | Bound, limit: float) -> None:
    """Send one query over UDP; return on any answer to it. Raises OSError without one in `limit` seconds."""
    await _exchange(dns.message.make_query(name, dns.rdatatype.A), server, way, limit)


def _addresses(answer: dns.message.Message, kind: dns.rdatatype.RdataType) -> list[Address]:
    # A record of another class than IN has no address, whatever its type says.
    return [
        ip_address(item.address)
        for rrset in answer.answer
        if (rrset.rdtype, rrset.rdclass) == (kind, dns.rdataclass.IN)
        for item in rrset
    ]


async def _exchange(
    query: dns.message.QueryMessage, server: Address, way: Marked | Bound, limit: float
) -> dns.message.Message:
    """Exchange one message, by UDP and when truncated by TCP (RFC 1035, 7766). Raises OSError."""
    with anyio.fail_after(limit):
        async with connected(way, server, PORT, socket.SOCK_DGRAM) as sock:
            sock.send(query.to_wire())
            while True:
                await anyio.wait_readable(sock)
                answer = _parse_answer(query, sock.recv(65535))
                if answer:
                    break
        if not answer.flags & dns.flags.TC:
            return answer
        async with connected(way, server, PORT, socket.SOCK_STREAM) as sock:
            stream = await SocketStream.from_socket(sock.dup())
            async with stream:
                wire = query.to_wire()
                await stream.send(struct.pack("!H", len(wire)) + wire)
                data = b""
                while len(data) < 2 or len(data) < 2 + struct.unpack("!H", data[:2])[0]:
                    try:
                        data += await stream.receive()
                    except anyio.EndOfStream as error:
                        raise OSError(f"{server} ended its answer early") from error
        answer = _parse_answer(query, data[2:])
        if answer is None:
            raise OSError(f"{server} answered something else over TCP")
        return answer


def _parse_answer(query: dns.message.QueryMessage, wire: bytes) -> dns.message.Message | None:
    """Return the message when it answers `query`, None when it is noise (wrong id, forged, broken)."""
    try:
        answer = dns.message.from_wire(wire, ignore_trailing=True, raise_on_truncation=False)
        return answer if query.is_response(answer) else None
    except Exception:  # whatever a forged packet makes the parser raise: the door promises OSError alone
        return None


class _Stream(AnyIOStream):
    """httpcore's own stream; a TLS handshake that is cancelled closes it too."""

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> httpcore.AsyncNetworkStream:
        try:
            return await super().start_tls(ssl_context, server_hostname, timeout)
        except BaseException:
            # httpcore leaves it open, and a hole in the firewall must not outlive its connection.
            await anyio.aclose_forcefully(self._stream)
            raise


class _Backend(httpcore.AsyncNetworkBackend):
    """Connects to the addresses given, whatever host the URL names."""

    def __init__(self, way: Marked | Bound, addresses: Sequence[Address]) -> None:
        self._way, self._addresses = way, addresses

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        failures = []
        # One after the other: two connections at once would need two holes, and one would outlive its use.
        for address in self._addresses:
            sock = None
            try:
                with anyio.fail_after(timeout):
                    sock = open_socket(self._way, address, socket.SOCK_STREAM)
                    await connect(sock, address, port)
                    return _Stream(await SocketStream.from_socket(sock))
            except OSError as error:  # TimeoutError included
                failures.append(f"{address}: {error.strerror or 'no answer'}")
            except BaseException:
                if sock:
                    sock.close()
                raise
            if sock:
                sock.close()
        raise httpcore.ConnectError("; ".join(failures) or f"no address for {host}")


class SystemHttp:
    """The door to HTTPS and DNS (see world.Http)."""

    def transport(
        self,
        way: Marked | Bound,
        addresses: Sequence[Address],
        ca_file: Path | None = None,
        *,
        newest: ssl.TLSVersion | None = None,
    ) -> httpx.AsyncBaseTransport:
        """Return a transport that connects to `addresses` only."""
        context = ssl.create_default_context(cafile=ca_file)
        if newest:
            context.maximum_version = newest
        # trust_env off: a proxy from the environment would be used from this namespace, unmarked. httpcore
        # applies socket options only after connecting, which is too late for a mark, hence the backend.
        transport = httpx.AsyncHTTPTransport(verify=context, trust_env=False)
        # httpx offers no argument for the backend; its pool is one attribute, pinned by the lock file.
        transport._pool = httpcore.AsyncConnectionPool(
            ssl_context=context, network_backend=_Backend(way, addresses)
        )
        return transport

    async def lookup(
        self, name: str, servers: Sequence[Address], way: Marked | Bound, *, limit: float = 5.0
    ) -> tuple[Address, ...]:
        """Resolve `name` (see `look_up`)."""
        return await look_up(name, servers, way, limit)

    async def ask(self, server: Address, name: str, way: Marked | Bound, *, limit: float) -> None:
        """Send one query; any answer to it will do."""
        await query_once(server, name, way, limit)

    async def knock(self, endpoint: Endpoint, way: Marked | Bound, *, limit: float) -> None:
        """Send a byte that WireGuard ignores."""
        async with connected(way, endpoint.address, endpoint.port, socket.SOCK_DGRAM) as sock:
            sock.send(b"\0")
            with anyio.move_on_after(limit):
                await anyio.wait_readable(sock)
                sock.recv(1)


def certificate_error(error: BaseException | None) -> ssl.SSLCertVerificationError | None:
    """Return the certificate's refusal behind an error, None when that was not the reason."""
    seen = set[int]()  # a chain may be a circle
    while error and id(error) not in seen:
        if isinstance(error, ssl.SSLCertVerificationError):
            return error
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return None


def is_misdated(refused: ssl.SSLCertVerificationError) -> bool:
    """Return whether a certificate is good, but not at this time."""
    return refused.verify_code in (9, 10)  # OpenSSL's X509_V_ERR_CERT_NOT_YET_VALID and _HAS_EXPIRED


def url_site(url: str) -> tuple[str, int]:
    """Return host and port of a URL."""
    parts = httpx.URL(url)
    return parts.host, parts.port or {"http": 80}.get(parts.scheme, 443)


async def request(
    http: Http,
    method: str,
    url: str,
    way: Marked | Bound,
    addresses: Sequence[Address],
    headers: dict[str, str] | None = None,
    body: bytes = b"",
    *,
    limit: float,
) -> None:
    """Request `url` from one of `addresses`; raise OSError without a 2xx within `limit` seconds."""
    try:
        with anyio.fail_after(limit):
            transport = http.transport(way, addresses)
            async with httpx.AsyncClient(transport=transport, timeout=limit, trust_env=False) as client:
                (await client.request(method, url, headers=headers, content=body)).raise_for_status()
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        # httpx quotes the URL, which may be a secret.
        raise ConnectionError(str(error).replace(url, "the URL") or type(error).__name__) from error
