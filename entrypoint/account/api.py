"""The WARP client API (warp-api 1): one HTTPS call, by marked sockets, through a hole made for it."""

import json
import ssl
import zlib
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path
from typing import Final

import anyio
import httpx

from entrypoint.account.model import Access
from entrypoint.account.replies import UNCERTAIN, ApiError, Reply, accepted, device_in, unanswered
from entrypoint.account.store import cache_addresses, cached_addresses
from entrypoint.account.strict_json import JsonValue
from entrypoint.addresses import Address, Destination, word_for
from entrypoint.errors import SettingsError
from entrypoint.linux.world import Clock, Http, Marked

type Reach = Callable[[frozenset[Destination]], AbstractAsyncContextManager[None]]
"""Opens holes in the firewall for marked sockets of ours; they close when the context ends."""

DEFAULT_URL: Final = "https://api.cloudflareclient.com"


@dataclass(frozen=True, slots=True)
class Profile:
    """A client that the API knows: path version, headers, and the newest TLS it speaks (None: any)."""

    version: str
    headers: Mapping[str, str]
    newest: ssl.TLSVersion | None


_BODY: Final = {"Content-Type": "application/json; charset=UTF-8", "Accept-Encoding": "gzip"}
PROFILES: Final = (
    # The one with the most independent proofs (warp-api 1.2, 1.5).
    Profile(
        "v0a2158",
        {"User-Agent": "okhttp/3.12.1", "CF-Client-Version": "a-6.10-2158", **_BODY},
        ssl.TLSVersion.TLSv1_2,
    ),
    # Another fingerprint, for the front that answers 403 to the first.
    Profile("v0a4471", {"User-Agent": "WARP for Android", "CF-Client-Version": "a-6.35-4471", **_BODY}, None),
)

BUILT_IN: Final[Mapping[str, tuple[Address, ...]]] = {
    "api.cloudflareclient.com": tuple(
        map(ip_address, ("104.16.192.82", "104.16.24.84", "2606:4700::6810:1854"))
    )
}
"""Where the API was seen (warp-api 1.1), for the day when no DNS server answers."""

LARGEST: Final = 1 << 20
"""Bytes of a body, packed and unpacked."""

DNS_LIMIT: Final = 2.0
CONNECT_LIMIT: Final = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class WarpApi:
    """The API at `base_url` (without the version path), asked on marked sockets.

    `servers` are the DNS servers; `memory` is a file that remembers the API's addresses for the day
    when DNS does not answer; `limit` in seconds is the total for one call.
    """

    http: Http
    clock: Clock
    reach: Reach
    servers: tuple[Address, ...]
    mark: int
    base_url: str = DEFAULT_URL
    ca_file: Path | None = None
    memory: Path | None = None
    limit: float = 20.0

    async def register(self, public_key: str, device_name: str, team_token: str | None = None) -> JsonValue:
        """Create a device (warp-api 1.4 call 1, 1.6) and return its object, unread. Raises ApiError.

        With `team_token` it becomes a device of that organisation (2.2).
        """
        now = datetime.fromtimestamp(self.clock.wall(), UTC)
        body = {
            "key": public_key,
            "install_id": "",
            "fcm_token": "",
            "tos": f"{now:%Y-%m-%dT%H:%M:%S}.{now.microsecond // 1000:03}Z",
            "model": "PC",
            "type": "Android",
            "locale": "en_US",
            "serial_number": "",
            "name": device_name,
        }
        team = {"CF-Access-Jwt-Assertion": team_token} if team_token else {}
        return await self._device("POST", "reg", body, team)

    async def device(self, access: Access) -> JsonValue:
        """Read the device (call 2): its object without the token, unread. Raises ApiError."""
        return await self._device("GET", f"reg/{access.device_id}", None, _bearer(access))

    async def rekey(self, access: Access, public_key: str) -> JsonValue:
        """Give the device this key (calls 4 and 3, section 4); return its object. Raises ApiError."""
        path, body, bearer = f"reg/{access.device_id}", {"key": public_key}, _bearer(access)
        try:
            return await self._device("PUT", path, body, bearer)
        except ApiError as error:
            if error.status not in (404, 405, 501):
                raise
        return await self._device("PATCH", path, body, bearer)

    async def bind(self, access: Access, license_key: str) -> None:
        """Bind the device to this licence's account (call 7, section 3). Raises ApiError."""
        path, body = f"reg/{access.device_id}/account", {"license": license_key}
        accepted(await self._call("PUT", path, body, _bearer(access)), self.clock.wall())

    async def unregister(self, access: Access) -> None:
        """Delete the device (call 5); one that is gone is what was wanted. Raises ApiError."""
        reply = await self._call("DELETE", f"reg/{access.device_id}", None, _bearer(access))
        if reply.status not in (404, 410):
            accepted(reply, self.clock.wall())

    async def answers(self) -> bool:
        """Say whether the API answers what needs no account (call 13)."""
        try:
            return bool(accepted(await self._call("GET", "client_config", None, {}), self.clock.wall()))
        except ApiError:
            return False

    async def _device(
        self, method: str, path: str, body: Mapping[str, str] | None, headers: Mapping[str, str]
    ) -> JsonValue:
        return device_in(await self._call(method, path, body, headers), self.clock.wall())

    async def page(self, url: str, headers: Mapping[str, str]) -> Reply:
        """Read a page elsewhere, as it is; redirects are not followed. Raises ApiError."""
        return await self._exchange("GET", [(PROFILES[-1], httpx.URL(url))], b"", headers)

    async def _call(
        self, method: str, path: str, body: Mapping[str, str] | None, headers: Mapping[str, str]
    ) -> Reply:
        """Ask as one client, and when that one is turned away, as another."""
        base = self.base_url.rstrip("/")
        ways = [(profile, httpx.URL(f"{base}/{profile.version}/{path}")) for profile in PROFILES]
        return await self._exchange(method, ways, json.dumps(body).encode() if body else b"", headers)

    async def _exchange(
        self, method: str, ways: list[tuple[Profile, httpx.URL]], content: bytes, headers: Mapping[str, str]
    ) -> Reply:
        """Ask in these ways, at one host, until one is not forbidden; `limit` is for all of them."""
        host = ways[0][1].host
        length = {"Content-Length": str(len(content))} if content else {}
        sent = False

        async def once() -> AsyncIterator[bytes]:
            nonlocal sent
            sent = True
            yield content

        try:
            with anyio.fail_after(self.limit):
                addresses = await self._addresses(host)
                # One family alone may be blocked (warp-api 1.9): the next try begins with IPv6.
                for (profile, url), version in zip(ways, (4, 6), strict=False):
                    named = {**profile.headers, **headers, **length}
                    there = tuple(sorted(addresses, key=lambda one: one.version != version))
                    async with (
                        self._client(url, there, profile) as client,
                        client.stream(
                            method, url, content=once() if content else None, headers=named
                        ) as response,
                    ):
                        data = await _body(response)
                    if response.status_code != 403:
                        break
        except (httpx.HTTPError, OSError) as error:  # TimeoutError included
            raise unanswered(host, error, UNCERTAIN if sent else 0) from error
        if [str(address) for address in addresses] != [host]:
            cache_addresses(self.memory, host, addresses)  # a server with a good certificate answered
        had = response.headers
        cookies = tuple(had.get_list("Set-Cookie"))
        return Reply(
            host, response.status_code, data, had.get("Retry-After", ""), had.get("Location", ""), cookies
        )

    @asynccontextmanager
    async def _client(
        self, url: httpx.URL, addresses: tuple[Address, ...], profile: Profile
    ) -> AsyncIterator[httpx.AsyncClient]:
        """Open the hole, then the client, so that the connection ends before its hole does."""
        holes = frozenset(Destination(address, url.port or 443, "tcp") for address in addresses)
        try:
            transport = self.http.transport(Marked(self.mark), addresses, self.ca_file, newest=profile.newest)
        except OSError as error:
            raise SettingsError([f"WARP_API_CA_FILE: not usable: {error.strerror or error}"]) from error
        async with (
            self.reach(holes),
            httpx.AsyncClient(
                transport=transport,
                timeout=httpx.Timeout(self.limit, connect=CONNECT_LIMIT),
                trust_env=False,
                follow_redirects=False,
            ) as client,
        ):
            yield client

    async def _addresses(self, host: str) -> tuple[Address, ...]:
        """Return where `host` is: itself, else by DNS, else what is remembered and built in."""
        with suppress(ValueError):
            return (ip_address(host),)
        holes = {Destination(server, 53, kind) for server in self.servers for kind in ("udp", "tcp")}
        known: tuple[Address, ...] = ()
        async with self.reach(frozenset(holes)):
            with anyio.move_on_after(self.limit / 2), suppress(OSError):
                known = await self.http.lookup(host, self.servers, Marked(self.mark), limit=DNS_LIMIT)
        if host in BUILT_IN:  # a captive portal's answer; a mirror of the user's may be anywhere
            known = tuple(address for address in known if not word_for(address))
        known = known or (*cached_addresses(self.memory, host), *BUILT_IN.get(host, ()))
        if not known:
            raise ApiError(f"no DNS server has an address for {host}", again=0)
        return tuple(dict.fromkeys(known))


async def _body(response: httpx.Response) -> bytes:
    """Read a body, unpacked by ourselves: httpx would unpack a bomb before anybody can look."""
    packed = bytearray()
    async for chunk in response.aiter_raw():
        packed += chunk
        if len(packed) > LARGEST:
            raise httpx.DecodingError("the answer is too large")
    if response.headers.get("Content-Encoding", "identity").lower() == "identity":
        return bytes(packed)
    try:
        data = zlib.decompressobj(wbits=31).decompress(packed, LARGEST + 1)
    except zlib.error:
        raise httpx.DecodingError("the answer is not gzip, as it says") from None
    if len(data) > LARGEST:
        raise httpx.DecodingError("the answer is too large")
    return data


def _bearer(access: Access) -> dict[str, str]:
    return {"Authorization": f"Bearer {access.token}"}
