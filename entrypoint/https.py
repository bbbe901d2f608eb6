"""The door to HTTPS and DNS: httpx on a network backend of ours.

httpcore applies `socket_options` only after connecting; the first packet would already be on the
wrong way. So connections are made here, and TLS is put on top of them.
"""

import socket
import ssl
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import anyio
import httpcore
import httpx
from anyio.abc import ByteStream, SocketStream
from anyio.streams.tls import TLSStream

from entrypoint import resolver
from entrypoint.ports import Bound, Marked
from entrypoint.sockets import Address, connect, open_socket


class _Stream(httpcore.AsyncNetworkStream):
    """An anyio stream as httpcore wants it."""

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109
        with _mapped(httpcore.ReadTimeout, httpcore.ReadError), anyio.fail_after(timeout):
            try:
                return await self._stream.receive(max_bytes)
            except anyio.EndOfStream:
                return b""

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109
        with _mapped(httpcore.WriteTimeout, httpcore.WriteError), anyio.fail_after(timeout):
            await self._stream.send(buffer)

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> httpcore.AsyncNetworkStream:
        with _mapped(httpcore.ConnectTimeout, httpcore.ConnectError), anyio.fail_after(timeout):
            try:
                stream = await TLSStream.wrap(
                    self._stream,
                    ssl_context=ssl_context,
                    hostname=server_hostname,
                    standard_compatible=False,
                    server_side=False,
                )
            except BaseException:
                # httpcore leaves it open, and a hole in the firewall must not outlive its connection.
                await anyio.aclose_forcefully(self._stream)
                raise
            return _Stream(stream)

    def get_extra_info(self, info: str) -> Any:
        return None


class _mapped:  # noqa: N801 - reads as a word
    """Turn the stream's failures into httpcore's, which httpx knows."""

    def __init__(self, slow: type[Exception], broken: type[Exception]) -> None:
        self._slow, self._broken = slow, broken

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, TimeoutError):
            raise self._slow("no answer in time") from error
        if isinstance(
            error, OSError | anyio.BrokenResourceError | anyio.ClosedResourceError | anyio.EndOfStream
        ):
            raise self._broken(str(error) or "connection lost") from error


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
    """The door to HTTPS and DNS (see ports.Http)."""

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
        transport = httpx.AsyncHTTPTransport(verify=context, trust_env=False)
        # httpx offers no argument for the backend; its pool is one attribute, pinned by the lock file.
        transport._pool = httpcore.AsyncConnectionPool(
            ssl_context=context, network_backend=_Backend(way, addresses)
        )
        return transport

    async def lookup(
        self, name: str, servers: Sequence[Address], way: Marked | Bound, *, limit: float = 5.0
    ) -> tuple[Address, ...]:
        """Resolve `name` (see resolver.lookup)."""
        return await resolver.lookup(name, servers, way, limit)

    async def ask(self, server: Address, name: str, way: Marked | Bound, *, limit: float) -> None:
        """Send one query; any answer to it will do."""
        await resolver.ask(server, name, way, limit)
