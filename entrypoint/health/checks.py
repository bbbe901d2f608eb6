"""What proves that the tunnel works: a trace, or a DNS answer, that came back through it."""

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

import anyio
import httpx

from entrypoint.network.plan import Address
from entrypoint.ports import Bound, Http, Marked

TRACE_BYTES = 16_384
"""More than any trace: whoever answers must not fill our memory."""


@dataclass(frozen=True, slots=True)
class Trace:
    """What /cdn-cgi/trace said (warp-api 6). Fields it did not send are empty, `ip` None."""

    warp: str
    ip: Address | None
    colo: str
    loc: str

    @property
    def active(self) -> bool:
        """Whether the request came out of WARP."""
        return self.warp in {"on", "plus"}


def parse(text: str) -> Trace:
    """Read `key=value` lines; whatever cannot be read counts as not sent."""
    # `uag` holds further equals signs.
    fields = dict(line.strip().partition("=")[::2] for line in text.splitlines())
    return Trace(
        warp=fields.get("warp", ""),
        ip=literal(fields.get("ip", "")),
        colo=fields.get("colo", ""),
        loc=fields.get("loc", ""),
    )


def literal(host: str) -> Address | None:
    """Return the address that `host` is, None when it is a name."""
    try:
        return ip_address(host)
    except ValueError:
        return None


def site(url: str) -> tuple[str, int]:
    """Return host and port of a URL."""
    parts = httpx.URL(url)
    return parts.host, parts.port or {"http": 80}.get(parts.scheme, 443)


def host(url: str) -> Address | None:
    """Return the address in a URL, None when its host is a name."""
    return literal(httpx.URL(url).host)


async def trace(
    http: Http,
    url: str,
    way: Marked | Bound,
    ca_file: Path | None,
    servers: Sequence[Address],
    *,
    limit: float,
) -> Trace:
    """Ask `url` this way; a host that is a name is looked up the same way, at `servers`.

    Raises OSError without an HTTP 200 within `limit` seconds.
    """
    try:
        with anyio.fail_after(limit):
            at = host(url)
            name = httpx.URL(url).host
            addresses = (at,) if at else await http.lookup(name, servers, way, limit=limit)
            transport = http.transport(way, addresses, ca_file)
            async with (
                httpx.AsyncClient(transport=transport, timeout=limit, trust_env=False) as client,
                client.stream("GET", url) as answer,
            ):
                answer.raise_for_status()
                body = b""
                async for part in answer.aiter_bytes():
                    body += part
                    if len(body) > TRACE_BYTES:
                        raise ConnectionAbortedError(f"{url} does not answer with a trace")
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise ConnectionError(f"{url}: {error}") from error
    return parse(body.decode(errors="replace"))


async def answered(http: Http, server: Address, name: str, device: str, *, limit: float) -> None:
    """Send one DNS query for `name` through `device`; raise OSError without an answer in `limit` seconds."""
    await http.ask(server, name, Bound(device), limit=limit)
