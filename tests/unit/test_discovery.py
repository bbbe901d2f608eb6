"""Queries before the tunnel exists: on marked sockets, through holes that close again."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from ipaddress import ip_address

import anyio
import httpx
import pytest

from entrypoint.account.model import Account
from entrypoint.account.upkeep import AccountUpkeep, Rechecks
from entrypoint.addresses import Address, Endpoint, NamedEndpoint
from entrypoint.client_details import saved_public_address
from entrypoint.discovery import LOOKUP_PAUSE, choose_public_host, resolve_endpoints
from entrypoint.firewall.killswitch import KillSwitch, kill_switch
from entrypoint.linux.world import Marked
from entrypoint.routing.uplinks import Uplinks, find_uplinks
from entrypoint.status.board import Board, Run
from entrypoint.status.states import State
from tests.fakes.warp_api import Fault, refusal
from tests.fakes.world import API, RESOLVERS, SEEN, FakeWorld, in_memory

pytestmark = pytest.mark.anyio
V4, V6 = ip_address("162.159.192.6"), ip_address("2606:4700:d0::a29f:c006")


@dataclass
class Stage:
    """A world whose firewall is closed, as it is when the chain asks."""

    world: FakeWorld
    switch: KillSwitch
    found: Uplinks
    board: Board

    async def account(self, **environ: str) -> Account:
        upkeep = AccountUpkeep(self.run(environ), self.switch, self.found, Rechecks())
        return (await upkeep.load_or_register()).account

    async def endpoints(self, account: Account, **environ: str) -> list[str]:
        found = await resolve_endpoints(self.run(environ), self.switch, account, self.found)
        return [str(one) for one in found]

    async def host(self, *, detect: bool = True, **environ: str) -> Address | str | None:
        return await choose_public_host(self.run(environ), self.switch, self.found, detect=detect)

    def run(self, environ: dict[str, str]) -> Run:
        return Run(self.world.settings(**environ), self.world.doors, self.board)

    def names(self, **names: list[Address]) -> None:
        for server in RESOLVERS:
            self.world.http.dns[server] |= {name.replace("_", "."): found for name, found in names.items()}


@pytest.fixture
async def stage(anyio_backend: str) -> AsyncIterator[Stage]:
    async with staged() as stage:
        yield stage


@asynccontextmanager
async def staged() -> AsyncIterator[Stage]:
    with in_memory() as world:
        found = find_uplinks(await world.netlink.snapshot(), frozenset())
        async with kill_switch(world.nft) as switch:
            closed = dict(world.nft.tables)
            yield Stage(world, switch, found, world.board())
            assert world.nft.tables == closed, "a hole is still open"
            assert all(isinstance(one.way, Marked) for one in world.http.connected)


# The account.


async def test_it_is_registered_once_and_told(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "ss-warp")
    first = await stage.account()
    assert (stage.board.status.state, stage.board.status.account) == (State.CONNECTING, "free")
    assert caplog.messages == ["registering an account", "registered account (0.0 s)"]
    stage.board = stage.world.board()
    assert await stage.account() == first
    assert stage.world.http.api.calls == [("POST", "/v0a2158/reg")]
    assert caplog.messages[2:] == ["loaded account"]


async def test_without_an_answer_it_waits_and_says_until_when(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    stage.world.http.api.faults += [
        *[Fault(httpx.ConnectError("refused"))] * 2,  # as either client
        Fault(refusal(500, "broken")),
        Fault(refusal(429, "slow down", {"Retry-After": "120"})),
    ]
    begun = stage.world.clock.now
    await stage.account()
    told = [line for line in caplog.messages if line.startswith("registration failed: ")]
    assert len(told) == 3
    assert all("; retrying in " in line for line in told)
    assert stage.world.clock.now - begun > 120
    assert stage.board.status.state is State.CONNECTING


async def test_while_it_waits_the_board_says_so(stage: Stage) -> None:
    del stage.world.http.sites[API]
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(stage.account)
        await stage.world.until(lambda: "retrying in" in stage.board.status.reason)
        assert stage.board.status.state is State.REGISTERING
        tasks.cancel_scope.cancel()


async def test_a_start_that_was_cut_off_waits_from_state_starting(stage: Stage) -> None:
    stage.world.http.api.faults.append(Fault(refusal(429, "slow down", {"Retry-After": "600"})))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(stage.account)
        await stage.world.until(lambda: "retrying in" in stage.board.status.reason)
        tasks.cancel_scope.cancel()
    stage.board, begun = stage.world.board(), stage.world.clock.now
    await stage.account()
    assert stage.world.clock.now - begun >= 600, "a container that restarts asks no faster"
    assert stage.board.status.state is State.CONNECTING


# Endpoints.


async def test_the_accounts_addresses_need_no_name(stage: Stage) -> None:
    account = await stage.account()
    asked = len(stage.world.http.lookups)
    found = await stage.endpoints(account)
    assert found[:2] == [f"{V4}:2408", f"[{V6}]:2408"]
    assert set(found) == {f"{at}:{port}" for at in (V4, f"[{V6}]") for port in (2408, 500, 1701, 4500)}
    assert len(stage.world.http.lookups) == asked


async def test_only_families_of_the_uplinks_are_tried(stage: Stage) -> None:
    account = await stage.account()
    stage.found = replace(stage.found, addresses=(ip_address("172.18.0.5"),))
    assert not [one for one in await stage.endpoints(account) if "[" in one]


async def test_an_account_with_a_name_alone_has_it_looked_up(stage: Stage) -> None:
    account = replace(
        await stage.account(), endpoints=(), endpoint_name=NamedEndpoint("engage.example", 2408)
    )
    stage.names(engage_example=[V4, V6])
    assert (await stage.endpoints(account))[:2] == [f"{V4}:2408", f"[{V6}]:2408"]


async def test_a_forged_answer_does_not_lead_to_us_or_our_neighbours(stage: Stage) -> None:
    account = replace(
        await stage.account(), endpoints=(), endpoint_name=NamedEndpoint("engage.example", 2408)
    )
    forged = [ip_address(one) for one in ("127.0.0.1", "169.254.169.254", "10.0.0.1")]
    stage.names(engage_example=[*forged, V4])
    assert (await stage.endpoints(account))[0] == f"{V4}:2408"


async def test_what_the_user_sets_replaces_it_in_this_order(stage: Stage) -> None:
    account = await stage.account()
    stage.names(edge_example=[V4], other_example=[V6, V4])
    found = await stage.endpoints(account, WARP_ENDPOINTS="edge.example:500,10.0.0.1,other.example:4500")
    assert found == [f"{V4}:500", "10.0.0.1:2408", f"{V4}:4500", f"[{V6}]:4500"]


async def test_a_name_without_an_address_is_asked_again(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    account, begun = await stage.account(), stage.world.clock.now
    async with anyio.create_task_group() as tasks:
        found: list[str] = []

        async def look() -> None:
            found.extend(await stage.endpoints(account, WARP_ENDPOINTS="edge.example:500"))

        tasks.start_soon(look)
        await stage.world.until(lambda: len(caplog.messages) >= 1)
        stage.names(edge_example=[V4])
    assert found == [str(Endpoint(V4, 500))]
    assert LOOKUP_PAUSE / 2 <= stage.world.clock.now - begun <= 2 * LOOKUP_PAUSE
    assert all("edge.example" in line for line in caplog.messages)


# The public address.


async def test_the_first_run_asks_what_the_world_sees_and_keeps_it(stage: Stage) -> None:
    assert await stage.host() == SEEN
    assert saved_public_address(stage.world.settings()) == SEEN
    asked = len(stage.world.http.connected)
    assert await stage.host(detect=False) == SEEN
    assert len(stage.world.http.connected) == asked == 1


async def test_what_is_set_is_not_asked_for(stage: Stage) -> None:
    assert await stage.host(SHADOWSOCKS_PUBLIC_HOST="vps.example.com") == "vps.example.com"
    assert not stage.world.http.connected


@pytest.mark.parametrize("urls", ["", "https://trace.example/", "https://192.0.2.1/trace"])
async def test_a_containers_own_address_is_no_public_one(stage: Stage, urls: str) -> None:
    if not urls:
        for server in RESOLVERS:
            del stage.world.http.sites[server]
    assert await stage.host(HEALTH_TRACE_URLS=urls) is None
    assert saved_public_address(stage.world.settings()) is None
    public = ip_address("198.51.100.9")
    stage.found = replace(stage.found, listening=(*stage.found.listening, public))
    assert await stage.host(HEALTH_TRACE_URLS=urls) == public, "a server's own is"


async def test_a_kept_address_that_is_none_is_no_address(stage: Stage) -> None:
    (stage.world.state / "public-address").write_bytes(b"\xffsomewhere\n")
    assert saved_public_address(stage.world.settings()) is None
    assert await stage.host(detect=False) is None


async def test_an_endpoint_is_tried_where_it_was_when_dns_is_gone(stage: Stage) -> None:
    name = NamedEndpoint("engage.example", 2408)
    account = replace(await stage.account(), endpoints=(), endpoint_name=name)
    stage.names(engage_example=[V4, V6])
    before = await stage.endpoints(account)
    assert before
    for server in RESOLVERS:
        stage.world.http.dns[server].clear()
    assert await stage.endpoints(account) == before
