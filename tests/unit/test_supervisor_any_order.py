"""Events in any order (C-20): whatever happens when, packets are blocked or tunnelled, never in clear.

500 steps; LAB_REPEAT=100 takes 10,000.
"""

import asyncio
import os
from collections.abc import Callable
from ipaddress import ip_address, ip_interface

import anyio
import pytest
from anyio.lowlevel import checkpoint
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from entrypoint.linux import state_dir
from entrypoint.linux.kernel_objects import SSSERVER_UID, Flow, Link, LinkAddress, LinkUp
from entrypoint.routing.lookup import decide_route
from entrypoint.routing.plan import TUNNEL_PRIORITY
from entrypoint.status.board import Board
from entrypoint.status.states import State
from tests.fakes.verdicts import Packet, passes
from tests.fakes.world import FakeWorld, in_memory

REPEAT = int(os.environ.get("LAB_REPEAT", "5"))
STEPS = 50
TURNS = 200
"""Of the event loop: a first start needs about 130."""
PUBLIC = (ip_address("9.9.9.9"), ip_address("2620:fe::fe"))
SPARE = ip_interface("172.18.0.77/16")


class Life(RuleBasedStateMachine):
    """One namespace, in which a supervisor is started, stopped and killed, and everything else happens."""

    def __init__(self) -> None:
        super().__init__()
        self.memory = in_memory()
        self.world: FakeWorld = self.memory.__enter__()
        self.runner = asyncio.Runner()
        self.running: asyncio.Task[None] | None = None
        self.board: Board | None = None
        self.scope: anyio.CancelScope | None = None
        self.bare = False
        """A layer was taken away while no supervisor ran to restore it."""
        self.sites = self.world.http.sites.copy()

    def teardown(self) -> None:
        """In the end all is well again: it connects, and a stop leaves nothing."""
        self.world.http.sites.update(self.sites)
        self.world.http.edge = True
        if not self.running:
            self.start()
        board = self.board
        assert board
        self.runner.run(self.world.until(lambda: board.status.state is State.CONNECTED))
        self.stop()
        assert "51820" not in str(self.world.netlink)
        self.runner.close()
        self.memory.__exit__(None, None, None)

    def wait(self, seconds: float) -> None:
        """Let everybody act, then virtual time go on."""

        async def sleep() -> None:
            for _ in range(TURNS):
                await checkpoint()
            await self.world.clock.sleep(seconds)

        self.runner.run(sleep())
        assert not (self.running and self.running.done()), self.running

    @initialize()
    def first(self) -> None:
        self.start()

    @precondition(lambda self: not self.running)
    @rule()
    def start(self) -> None:
        self.board = self.world.board()
        self.bare = False

        async def life() -> None:
            with anyio.CancelScope() as self.scope:
                await self.world.run(self.board, PRINT_LINK="off")

        async def begin() -> None:
            self.running = asyncio.get_running_loop().create_task(life())

        self.runner.run(begin())
        self.wait(0.01)

    @precondition(lambda self: self.running)
    @rule()
    def stop(self) -> None:
        async def end() -> None:
            assert self.running
            assert self.scope
            self.scope.cancel()
            await self.running

        self.runner.run(end())
        self.running = None
        assert not self.world.processes.alive()

    @precondition(lambda self: self.running)
    @rule()
    def kill(self) -> None:
        """SIGKILL: what was there stays, but for the children, which are on a leash."""
        netlink, nft = self.world.netlink, self.world.nft
        left = [list(part) for part in (netlink.links, netlink.addresses, netlink.routes, netlink.rules)]
        tables = dict(nft.tables)
        network = state_dir.read(self.world.state / "network.json")
        self.stop()
        netlink.links, netlink.addresses, netlink.routes, netlink.rules = left  # type: ignore[assignment]
        nft.tables = tables
        if network is not None:
            (self.world.state / "network.json").write_bytes(network)

    @property
    def armed(self) -> bool:
        """Whether the rules are there: before that the firewall stands alone."""
        return any(one.priority == TUNNEL_PRIORITY for one in self.world.netlink.rules)

    def layer(self, away: Callable[[], None]) -> None:
        """Another program takes one layer away: the other holds until it is back."""
        away()
        self.never_in_clear()
        self.bare = not self.running
        self.wait(6)

    @precondition(lambda self: self.armed and not self.bare)
    @rule()
    def flush_firewall(self) -> None:
        self.layer(self.world.nft.flush)

    @precondition(lambda self: self.armed and not self.bare)
    @rule(share=st.sampled_from((1, 2, 3)))
    def flush_rules(self, share: int) -> None:
        ours = [one for one in self.world.netlink.rules if 0 < one.priority < 32766]
        self.layer(lambda: self.world.netlink.meddle(*ours[::share], removes=True))

    @precondition(lambda self: self.armed and not self.bare)
    @rule(name=st.sampled_from(("wg0", "ssw-null")), deleted=st.booleans())
    def take_a_device(self, name: str, deleted: bool) -> None:
        if any(link.name == name for link in self.world.netlink.links):
            item = Link(name, "tun") if deleted else LinkUp(name)
            self.layer(lambda: self.world.netlink.meddle(item, removes=True))

    @precondition(lambda self: self.running)
    @rule(which=st.sampled_from(("ss-warp-wireguard", "ssserver")))
    def kill_a_child(self, which: str) -> None:
        for child in self.world.processes.children:
            if child.alive and child.program.name == which:
                child.kill()
        self.wait(0)

    @precondition(lambda self: self.running)
    @rule(hangs=st.booleans())
    def ssserver_hangs_or_goes_on(self, hangs: bool) -> None:
        for child in self.world.processes.ssservers():
            child.hangs = hangs

    @rule()
    def another_address(self) -> None:
        there = any(one.address == SPARE for one in self.world.netlink.addresses)
        self.world.netlink.meddle(LinkAddress("eth0", SPARE), removes=there)
        self.wait(0)

    @rule(up=st.booleans())
    def api_comes_and_goes(self, up: bool) -> None:
        for address, site in self.sites.items():
            if site is self.world.http.api:
                if up:
                    self.world.http.sites[address] = site
                else:
                    self.world.http.sites.pop(address, None)

    @rule(up=st.booleans())
    def edge_comes_and_goes(self, up: bool) -> None:
        self.world.http.edge = up

    @rule(seconds=st.sampled_from((0.01, 1.0, 15.0, 90.0)))
    def time_goes_by(self, seconds: float) -> None:
        self.wait(seconds)

    @invariant()
    def never_in_clear(self) -> None:
        if not self.world.nft.count:
            return
        state, table = self.world.netlink._state(), self.world.nft.tables.get("inet ss_warp", "")
        for target in PUBLIC:
            way = decide_route(state, Flow(target))
            if way and way.device == "eth0":
                source = next(
                    one.address.ip
                    for one in state.addresses
                    if one.device == "eth0" and one.address.version == target.version
                )
                for uid in 0, SSSERVER_UID:
                    assert not passes(table, Packet("eth0", source, target, uid=uid)), f"{target} in clear"

    @invariant()
    def one_account(self) -> None:
        assert len(self.world.http.api.devices) <= 1


@pytest.mark.timeout(60 + 6 * REPEAT)
def test_c20_events_in_any_order() -> None:
    lives = settings(
        max_examples=2 * REPEAT,
        stateful_step_count=STEPS,
        suppress_health_check=list(HealthCheck),
        database=None,
        phases=[Phase.generate],  # of a failure the whole story is shown: shrinking it takes minutes
    )
    run_state_machine_as_test(Life, settings=lives)
