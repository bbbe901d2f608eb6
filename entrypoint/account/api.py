"""The WARP client API: one HTTPS call, by marked sockets, through a hole in the firewall made for it."""

import json
import ssl
import zlib
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http import HTTPStatus
from ipaddress import ip_address
from pathlib import Path

import anyio
import httpx

from entrypoint.account.model import Access
from entrypoint.account.replies import UNCERTAIN, ApiError, Reply, accepted, device_in, unanswered
from entrypoint.account.store import cache_addresses, cached_addresses
from entrypoint.addresses import Address, Destination, word_for
from entrypoint.errors import SettingsError
from entrypoint.linux.http import certificate_error
from entrypoint.linux.world import Clock, Http, Marked
from entrypoint.strict_json import JsonValue

type Reach = Callable[[frozenset[Destination]], AbstractAsyncContextManager[None]]
"""Opens holes in the firewall for our marked sockets; they close when the context ends."""

DEFAULT_URL = "https://api.cloudflareclient.com"


@dataclass(frozen=True, slots=True)
class Profile:
    """A client that the API knows: path version, headers, and the newest TLS it speaks (None: any)."""

    version: str
    headers: Mapping[str, str] = field(hash=False)
    newest: ssl.TLSVersion | None


_BODY = {"Content-Type": "application/json; charset=UTF-8", "Accept-Encoding": "gzip"}
# Some addresses are blocked by their fingerprint or over IPv4 alone, so a 403 is retried as the next client,
# over IPv6 first.
PROFILES = (
    # wgcf's and many scripts' client: the front accepts its headers with TLS 1.2 alone.
    Profile(
        "v0a2158",
        {"User-Agent": "okhttp/3.12.1", "CF-Client-Version": "a-6.10-2158", **_BODY},
        ssl.TLSVersion.TLSv1_2,
    ),
    # Another fingerprint, for a front or a filter on the way that turns the first one away.
    Profile("v0a4471", {"User-Agent": "WARP for Android", "CF-Client-Version": "a-6.35-4471", **_BODY}, None),
)

BUILT_IN: Mapping[str, tuple[Address, ...]] = {
    "api.cloudflareclient.com": tuple(
        map(ip_address, ("104.16.192.82", "104.16.24.84", "2606:4700::6810:1854"))
    )
}
"""Addresses that the API had in 2026, for the day when no DNS server answers."""

LARGEST = 1 << 20
"""Bytes of a body, packed and unpacked."""

DNS_LIMIT = 2.0
CONNECT_LIMIT = 5.0
LEAST_CONNECT_LIMIT = 1.5
"""Seconds for one TCP connection, and again for its TLS handshake; shared out when there are many to try."""

MOST_ADDRESSES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class WarpApi:
    """The API at `base_url` (without the version path), called on marked sockets.

    `servers` are the DNS servers; `memory` is a file that remembers where and as which client the API was
    reached; `limit` in seconds is the total for one call.
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
        """Create a device (POST reg) and return its object, unread. Raises ApiError.

        With `team_token` it becomes a device of that organisation.
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
        """Read the device: its object without the token, unread. Raises ApiError."""
        return await self._device("GET", f"reg/{access.device_id}", None, _bearer(access))

    async def rekey(self, access: Access, public_key: str) -> JsonValue:
        """Give the device this key; return its object. Not every version has PUT. Raises ApiError."""
        path, body, bearer = f"reg/{access.device_id}", {"key": public_key}, _bearer(access)
        try:
            return await self._device("PUT", path, body, bearer)
        except ApiError as error:
            if error.status not in (404, 405, 501):
                raise
        return await self._device("PATCH", path, body, bearer)

    async def use_wireguard(self, access: Access, public_key: str) -> JsonValue:
        """Have a MASQUE device speak WireGuard with this key; return its object. Raises ApiError."""
        body = {"key": public_key, "key_type": "curve25519", "tunnel_type": "wireguard"}
        return await self._device("PATCH", f"reg/{access.device_id}", body, _bearer(access))

    async def bind(self, access: Access, license_key: str) -> None:
        """Bind the device to this licence's account. Raises ApiError."""
        path, body = f"reg/{access.device_id}/account", {"license": license_key}
        accepted(await self._call("PUT", path, body, _bearer(access)), self.clock.wall())

    async def unregister(self, access: Access) -> None:
        """Delete the device; that it is gone already is what was wanted. Raises ApiError."""
        reply = await self._call("DELETE", f"reg/{access.device_id}", None, _bearer(access))
        try:
            accepted(reply, self.clock.wall())
        except ApiError as error:
            if not error.gone:
                raise

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
        """Call as one client, and when that one is turned away, as another."""
        base = self.base_url.rstrip("/")
        clients = [(profile, httpx.URL(f"{base}/{profile.version}/{path}")) for profile in PROFILES]
        return await self._exchange(method, clients, json.dumps(body).encode() if body else b"", headers)

    async def _exchange(
        self,
        method: str,
        clients: list[tuple[Profile, httpx.URL]],
        content: bytes,
        headers: Mapping[str, str],
    ) -> Reply:
        """Call one host as each client at each of its addresses until one is let in; `limit` is for all.

        Filters stop one client's TLS greeting, or one family, and leave the rest alone. Until the request is
        sent, the next attempt is safe; a 403 moves on to the next client, too.
        """
        host = clients[0][1].host
        length = {"Content-Length": str(len(content))} if content else {}
        sent = False

        async def once() -> AsyncIterator[bytes]:
            nonlocal sent
            # Once the body is on its way the device may exist, whatever the answer: such a failure waits
            # longer.
            sent = True
            yield content

        reply: Reply | None = None
        failure: Exception = OSError("no address to connect to")
        urls, refused = {profile.version: url for profile, url in clients}, set[str]()
        with anyio.move_on_after(self.limit) as patience:
            ways = await self._ways(host, [profile for profile, _ in clients])
            for number, (profile, address) in enumerate(ways):
                if profile.version in refused:
                    continue
                rest = patience.deadline - anyio.current_time()
                connect = min(CONNECT_LIMIT, max(rest / (len(ways) - number), LEAST_CONNECT_LIMIT))
                named = {**profile.headers, **headers, **length}
                url = urls[profile.version]
                try:
                    async with (
                        self._client(url, address, profile, connect) as client,
                        client.stream(
                            method, url, content=once() if content else None, headers=named
                        ) as response,
                    ):
                        reply = _reply(host, response, await _body(response))
                except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                    # What a person can mend is said first: the rest may be its consequence.
                    failure = failure if certificate_error(failure) else error
                    continue
                except (httpx.HTTPError, OSError) as error:
                    raise unanswered(host, error, UNCERTAIN if sent else 0) from error
                if reply.status != HTTPStatus.FORBIDDEN:
                    self._remember(host, profile, address, ways)
                    return reply
                refused.add(profile.version)
        if patience.cancelled_caught:
            failure = TimeoutError()
        if reply and not patience.cancelled_caught:
            return reply
        raise unanswered(host, failure, UNCERTAIN if sent else 0) from failure

    async def _ways(self, host: str, profiles: list[Profile]) -> list[tuple[Profile, Address]]:
        """Return what to try, in this order: what worked the last time, then each client by each family."""
        addresses = await self._addresses(host)
        ways = [
            (profile, address)
            # One family alone may be blocked: the second client begins with the other one.
            for profile, family in zip(profiles, (4, 6), strict=False)
            for address in sorted(addresses, key=lambda one: one.version != family)
        ]
        worked = [
            (profile, address)
            for profile in profiles
            for address in cached_addresses(self.memory, f"{host}/{profile.version}")
            if address in addresses
        ]
        return list(dict.fromkeys([*worked, *ways]))

    def _remember(
        self, host: str, profile: Profile, address: Address, ways: list[tuple[Profile, Address]]
    ) -> None:
        """Remember where the host is, and where and as which client it has answered."""
        if host == str(address):
            return
        cache_addresses(self.memory, host, list(dict.fromkeys([address, *(other for _, other in ways)])))
        for one in PROFILES:
            worked = [address] if one is profile else []
            cache_addresses(self.memory, f"{host}/{one.version}", worked)

    @asynccontextmanager
    async def _client(
        self, url: httpx.URL, address: Address, profile: Profile, connect: float
    ) -> AsyncIterator[httpx.AsyncClient]:
        """Open the hole, then the client, so that the connection ends before its hole does."""
        hole = Destination(address, url.port or 443, "tcp")
        try:
            transport = self.http.transport(
                Marked(self.mark), (address,), self.ca_file, newest=profile.newest
            )
        except OSError as error:
            raise SettingsError([f"WARP_API_CA_FILE: not usable: {error.strerror or error}"]) from error
        async with (
            self.reach(frozenset({hole})),
            httpx.AsyncClient(
                transport=transport,
                timeout=httpx.Timeout(self.limit, connect=connect),
                trust_env=False,
                follow_redirects=False,
            ) as client,
        ):
            yield client

    async def _addresses(self, host: str) -> tuple[Address, ...]:
        """Return where `host` is: itself, else by DNS or as remembered, then the official name's addresses.

        A poisoned DNS answer is a public address like any other, and must not shut out those that work.
        """
        with suppress(ValueError):
            return (ip_address(host),)
        holes = {Destination(server, 53, kind) for server in self.servers for kind in ("udp", "tcp")}
        known: tuple[Address, ...] = ()
        async with self.reach(frozenset(holes)):
            with anyio.move_on_after(self.limit / 2), suppress(OSError):
                known = await self.http.lookup(host, self.servers, Marked(self.mark), limit=DNS_LIMIT)
        # A private address for the real API is a captive portal's answer.
        if host in BUILT_IN:  # a captive portal's answer; a mirror may be anywhere
            known = tuple(address for address in known if not word_for(address))
        known = known[:MOST_ADDRESSES] or cached_addresses(self.memory, host)
        known = (*known, *BUILT_IN.get(host, ()))
        if not known:
            raise ApiError(f"no DNS server has an address for {host}", again=0)
        return tuple(dict.fromkeys(known))


def _reply(host: str, response: httpx.Response, body: bytes) -> Reply:
    had = response.headers
    cookies = tuple(had.get_list("Set-Cookie"))
    return Reply(
        host, response.status_code, body, had.get("Retry-After", ""), had.get("Location", ""), cookies
    )


async def _body(response: httpx.Response) -> bytes:
    """Read and unpack a body: httpx would unpack a bomb before its size can be checked."""
    packed = bytearray()
    # Raw: httpx would inflate a bomb before its size could be checked.
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
