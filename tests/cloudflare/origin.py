"""The origin: trace, bulk data, UDP echo and DNS at addresses that tunnel and direct path both reach."""

import hashlib
import re
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial

import anyio
import anyio.abc

from tests.cloudflare.config import BULK_PORT, ECHO_PORT, ORIGIN_ADDRESSES, bulk_blocks
from tests.cloudflare.fabric import Fabric
from tests.cloudflare.names import Zone, answered
from tests.cloudflare.seen import Seen
from tests.cloudflare.trace import Visit, trace
from tests.cloudflare.web import CHUNK, Request, Response, ends, listening, plain, serve

DNS_PORT, HTTPS_PORT = 53, 443
TEXT = {"content-type": "text/plain", "server": "cloudflare"}
SEEN_AT_MOST = 100_000


class Origin:
    """Listens and remembers who came. `warp` says on, plus or off for a source address."""

    def __init__(self, zone: Zone, context: ssl.SSLContext, warp: Callable[[str], str]) -> None:
        self._zone, self._context, self._warp = zone, context, warp
        self.seen: list[Seen] = []
        self.ahead = 0.0
        """Seconds that Cloudflare's clock is ahead of everybody else's."""

    @asynccontextmanager
    async def listening(self, fabric: Fabric) -> AsyncIterator[None]:
        """Be there, in a namespace of our own, while the block runs."""
        inner = fabric.add("origin", 0, ORIGIN_ADDRESSES)
        inner.ip(*(f"address add {one} dev lo" for one in ORIGIN_ADDRESSES))
        # Before the group runs: whoever waits for us finds every port open.
        jobs: list[Callable[[], object]] = []
        with inner.entered():
            for address in map(str, ORIGIN_ADDRESSES):
                jobs += [
                    partial(serve, listening(address, BULK_PORT), self.answer),
                    partial(serve, listening(address, HTTPS_PORT), self.answer, self._context),
                    partial(self._echo, _udp(address, ECHO_PORT), address),
                    partial(self._dns_udp, _udp(address, DNS_PORT), address),
                    partial(self._dns_tcp, listening(address, DNS_PORT), address),
                ]
        async with anyio.create_task_group() as tasks:
            for job in jobs:
                tasks.start_soon(job)  # type: ignore[arg-type]
            yield
            tasks.cancel_scope.cancel()

    async def answer(self, request: Request) -> Response:
        """Answer trace, bulk data and sink."""
        secure = request.tls != "off"
        self._note(
            "https" if secure else "http",
            request.source,
            request.source_port,
            request.destination,
            request.path,
        )
        headers = request.headers
        if request.path.partition("?")[0] == "/cdn-cgi/trace":
            host, agent = headers.get("host", ""), headers.get("user-agent", "")
            visit = Visit(host, request.source, agent, request.tls, self._warp(request.source))
            return Response(200, trace(visit, at=time.time() + self.ahead), TEXT)
        if match := re.fullmatch(r"/bytes/(\d{1,11})", request.path):
            size = int(match[1])
            return Response(200, b"", TEXT, blocks=bulk_blocks(size), length=size)
        if request.path == "/sink" and request.method in ("POST", "PUT"):
            digest = hashlib.sha256()
            async for chunk in request.chunks:
                digest.update(chunk)
            return Response(200, digest.hexdigest().encode(), TEXT)
        return Response(404, b"404 page not found", TEXT)

    async def _echo(self, sock: socket.socket, here: str) -> None:
        async with await anyio.abc.UDPSocket.from_socket(sock) as udp:
            async for payload, (source, port) in udp:
                self._note("echo", source, port, here, payload[:16].hex())
                await udp.sendto(payload + f"|{plain(source)} {port}".encode(), source, port)

    async def _dns_udp(self, sock: socket.socket, here: str) -> None:
        async with await anyio.abc.UDPSocket.from_socket(sock) as udp:
            async for query, (source, port) in udp:
                if (reply := self._resolve("dns-udp", query, source, port, here)) is not None:
                    await udp.sendto(reply, source, port)

    async def _dns_tcp(self, sock: socket.socket, here: str) -> None:
        async def connection(stream: anyio.abc.SocketStream) -> None:
            source, port = ends(stream)[0]
            buffer = b""
            try:
                async with stream:
                    while True:
                        buffer += await stream.receive(CHUNK)
                        size = int.from_bytes(buffer[:2]) + 2
                        if len(buffer) < max(size, 3):
                            continue
                        query, buffer = buffer[2:size], buffer[size:]
                        reply = self._resolve("dns-tcp", query, source, port, here)
                        if reply is None:
                            return
                        await stream.send(len(reply).to_bytes(2) + reply)
            except (anyio.EndOfStream, anyio.BrokenResourceError, OSError):
                return

        await (await anyio.abc.SocketListener.from_socket(sock)).serve(connection)

    def _resolve(self, protocol: str, query: bytes, source: str, port: int, here: str) -> bytes | None:
        try:
            reply, name = answered(query, self._zone)
        except ValueError:
            return None
        self._note(protocol, source, port, here, name)
        return reply

    def _note(self, protocol: str, source: str, port: int, here: str, detail: str) -> None:
        source = plain(source)
        if len(self.seen) < SEEN_AT_MOST:
            self.seen.append(Seen(time.time(), protocol, source, port, here, detail, self._warp(source)))


def _udp(address: str, port: int) -> socket.socket:
    made = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    if ":" in address:
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.setsockopt(socket.IPPROTO_IPV6, 24, 1280)  # IPV6_MTU: the tunnel's, since no router may cut
    else:
        made.setsockopt(socket.IPPROTO_IP, 10, 0)  # IP_MTU_DISCOVER off: answers may be cut on the way
    made.bind((address, port))
    return made
