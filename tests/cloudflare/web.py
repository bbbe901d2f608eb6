"""A small HTTP/1.1 server on h11, for API, origin and control; its answers can end badly on purpose."""

import socket
import ssl
import struct
import sys
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any

import anyio
import h11
from anyio.abc import Listener, SocketAttribute, SocketStream
from anyio.streams.tls import TLSAttribute, TLSListener, TLSStream

from tests.cloudflare.faults import Ending

type Stream = SocketStream | TLSStream
CHUNK = 1 << 18


@dataclass(frozen=True, slots=True)
class Request:
    """A request. `tls` is the protocol's name or `off`; header names are in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    source: str
    source_port: int
    destination: str
    tls: str
    chunks: AsyncIterator[bytes]

    async def body(self) -> bytes:
        """Return the whole body."""
        return b"".join([bytes(one) async for one in self.chunks])


@dataclass(frozen=True, slots=True)
class Response:
    """An answer; `blocks` with their total `length` in place of a `body` for much data."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    ending: Ending = "whole"
    blocks: Iterable[bytes] = ()
    length: int = 0


type Answerer = Callable[[Request], Awaitable[Response]]


async def serve(sock: socket.socket, answer: Answerer, context: ssl.SSLContext | None = None) -> None:
    """Answer requests on a listening socket until cancelled; with `context` by TLS."""
    plain = await anyio.abc.SocketListener.from_socket(sock)
    listener: Listener[SocketStream] | TLSListener = (
        TLSListener(plain, context, standard_compatible=False) if context else plain
    )

    async def connection(stream: Stream) -> None:
        try:
            async with stream:
                await _Conversation(stream, answer).run()
        except (anyio.BrokenResourceError, anyio.ClosedResourceError, OSError, h11.RemoteProtocolError):
            return

    await listener.serve(connection)


class _Conversation:
    def __init__(self, stream: Stream, answer: Answerer) -> None:
        self._stream, self._answer = stream, answer
        self._http = h11.Connection(h11.SERVER)
        (self._source, self._port), (self._destination, _) = ends(stream)
        self._tls = _extra(stream, TLSAttribute.tls_version, "off")

    async def run(self) -> None:
        while True:
            event = await self._next()
            if not isinstance(event, h11.Request):
                return
            request = Request(
                method=event.method.decode(),
                path=event.target.decode(),
                headers={k.decode(): v.decode("latin-1") for k, v in event.headers},
                source=self._source,
                source_port=self._port,
                destination=self._destination,
                tls=self._tls,
                chunks=self._chunks(),
            )
            try:
                response = await self._answer(request)
            except Exception as error:
                traceback.print_exc(file=sys.stderr)
                response = Response(500, f"the emulator failed: {error!r}".encode())
            async for _ in request.chunks:
                pass
            await self._send(response)
            if response.ending != "whole" or self._http.our_state is not h11.DONE:
                return
            self._http.start_next_cycle()

    async def _next(self) -> object:
        while (event := self._http.next_event()) is h11.NEED_DATA:
            if self._http.they_are_waiting_for_100_continue:
                await self._stream.send(self._wire(h11.InformationalResponse(status_code=100, headers=[])))
            try:
                self._http.receive_data(await self._stream.receive(CHUNK))
            except anyio.EndOfStream:
                self._http.receive_data(b"")
        return event

    async def _chunks(self) -> AsyncIterator[bytes]:
        while isinstance(event := await self._next(), h11.Data):
            yield event.data

    def _wire(self, event: h11.Event) -> bytes:
        return self._http.send(event) or b""

    async def _send(self, response: Response) -> None:
        if response.ending == "hang":
            await anyio.sleep_forever()
        length = response.length or len(response.body)
        headers = dict(response.headers)
        if response.status != 204:
            headers["content-length"] = str(length)
        head = h11.Response(status_code=response.status, headers=list(headers.items()))
        await self._stream.send(self._wire(head))
        if response.ending == "drip":
            for byte in response.body:
                await self._stream.send(self._wire(h11.Data(data=bytes([byte]))))
                await anyio.sleep(1)
        elif response.ending != "whole":
            await self._stream.send(self._wire(h11.Data(data=response.body[: length // 2])))
            if response.ending == "stall":
                await anyio.sleep_forever()
            if response.ending == "reset":
                raw = _extra(self._stream, SocketAttribute.raw_socket, None)
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            await anyio.aclose_forcefully(self._stream)
        else:
            await self._send_body(response)

    async def _send_body(self, response: Response) -> None:
        for block in response.blocks or ([response.body] if response.body else []):
            await self._stream.send(self._wire(h11.Data(data=block)))
        if end := self._wire(h11.EndOfMessage()):
            await self._stream.send(end)


def ends(stream: Stream) -> tuple[tuple[str, int], tuple[str, int]]:
    """Return the peer's and our own address and port; empty and 0 on a Unix socket, which has none."""
    both = (
        _extra(stream, one, "") for one in (SocketAttribute.remote_address, SocketAttribute.local_address)
    )
    peer, local = ((plain(one[0]), int(one[1])) if isinstance(one, tuple) else ("", 0) for one in both)
    return peer, local


def _extra(stream: Stream, attribute: Any, default: Any) -> Any:
    return stream.extra(attribute, default)  # noqa: S610 - anyio's, not Django's


def plain(address: str) -> str:
    """Return the address without zone, and an IPv4 one as such when a dual-stack socket mapped it."""
    parsed = ip_address(address.partition("%")[0])
    return str(getattr(parsed, "ipv4_mapped", None) or parsed)


def listening(address: str, port: int) -> socket.socket:
    """Return a listening TCP socket in this thread's namespace; `::` means both families."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return socket.create_server((address, port), family=family, backlog=256, dualstack_ipv6=address == "::")


def listening_unix(path: str) -> socket.socket:
    """Return a listening Unix socket."""
    made = socket.socket(socket.AF_UNIX)
    made.bind(path)
    made.listen()
    return made
