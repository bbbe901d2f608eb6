"""The kill switch in force: closed first and last, holes only while they are needed."""

import re
from dataclasses import replace
from ipaddress import ip_address

import anyio
import anyio.lowlevel
import pytest

from entrypoint.addresses import Destination, Ports
from entrypoint.errors import PlatformError, UndoError
from entrypoint.firewall.killswitch import KillSwitch, kill_switch
from entrypoint.firewall.policy import Closed, FullTunnel, HostFull, Policy, ProxyTunnel
from entrypoint.firewall.ruleset import release, ruleset
from tests.fakes.nft import FakeNft

pytestmark = pytest.mark.anyio

EDGE = Destination(ip_address("162.159.192.1"), 2408, "udp")
API = Destination(ip_address("104.16.0.1"), 443, "tcp")
TUNNEL = (ip_address("172.16.0.2"), ip_address("2606:4700:110::2"))
FULL = FullTunnel(device="wg0", addresses=TUNNEL, endpoints=frozenset({EDGE}))
PROXY = ProxyTunnel(device="wg0", addresses=TUNNEL)
FULL_ON_HOST = HostFull(
    device="wg0", null_device="ssw-null", addresses=TUNNEL, uplinks=("eth0",), endpoints=frozenset({EDGE})
)
SHUT = HostFull(device="wg0", null_device="ssw-null", uplinks=("eth0",))
POLICIES: tuple[Policy, ...] = (Closed(), Closed(holes=frozenset({API})), FULL, PROXY, FULL_ON_HOST)


async def test_closed_from_the_first_moment_and_for_ever() -> None:
    nft = FakeNft()
    async with kill_switch(nft) as switch:
        closed = str(nft)
        await switch.set(FULL)
        assert str(nft) != closed
    assert str(nft) == closed


async def test_a_firewall_that_cannot_be_closed_again_is_said() -> None:
    nft = FakeNft()
    with pytest.raises(UndoError, match="firewall: nft"):
        async with kill_switch(nft) as switch:
            await switch.set(FULL)
            nft.denied = True


@pytest.mark.parametrize("before", POLICIES)
async def test_a_predecessors_table_is_replaced_whole(before: Policy) -> None:
    nft, fresh = FakeNft(), FakeNft()
    await nft.load("table ip nat {\n\tdocker\n}\n" + ruleset(before))
    await fresh.load("table ip nat {\n\tdocker\n}\n" + ruleset(Closed()))
    async with kill_switch(nft):
        assert str(nft) == str(fresh)


async def test_a_hole_is_open_while_inside_and_on_every_policy() -> None:
    nft = FakeNft()
    async with kill_switch(nft) as switch:
        async with switch.hole([API]), switch.hole([API, EDGE]):
            assert "104.16.0.1 . tcp . 443" in str(nft)
            await switch.set(FULL)
            assert "104.16.0.1 . tcp . 443" in str(nft)
        assert "104.16.0.1" not in str(nft)
        async with switch.hole([API]):
            async with switch.hole([API]):
                pass
            assert "104.16.0.1" in str(nft)
        await switch.set(PROXY)
        closed = str(nft)
        async with switch.hole([API]):
            assert str(nft) == closed


async def test_a_hole_is_closed_whatever_ends_it() -> None:
    for turns in range(12):
        nft = FakeNft()
        async with kill_switch(nft) as switch:
            closed = str(nft)

            async def peep(switch: KillSwitch = switch) -> None:
                async with switch.hole([API]):
                    await anyio.sleep_forever()

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(peep)
                for _ in range(turns):
                    await anyio.lowlevel.checkpoint()
                tasks.cancel_scope.cancel()
            assert str(nft) == closed, turns
            with pytest.raises(ValueError, match="inside"):
                async with switch.hole([API]):
                    raise ValueError("inside")
            assert str(nft) == closed


async def test_drift_is_noticed_and_mended() -> None:
    nft = FakeNft()
    async with kill_switch(nft) as switch:
        await switch.set(FULL)
        good = str(nft)
        assert await switch.intact()
        nft.flush()
        assert not await switch.intact()
        await switch.restore()
        assert await switch.intact()
        assert str(nft) == good


async def test_a_refused_policy_leaves_the_old_one_in_the_kernel() -> None:
    nft = FakeNft()
    async with kill_switch(nft) as switch:
        closed = str(nft)
        nft.fail_at = {nft.count + 1}
        with pytest.raises(OSError, match="nft"):
            await switch.set(FULL)
        assert str(nft) == closed
        assert not await switch.intact()  # so that it is tried again


async def test_without_net_admin_the_remedy_is_named() -> None:
    with pytest.raises(PlatformError) as caught:
        async with kill_switch(FakeNft(denied=True)):
            pytest.fail("entered")
    assert "NET_ADMIN" in caught.value.hint


async def test_switched_off_nothing_is_loaded_and_an_old_table_goes() -> None:
    nft = FakeNft()
    await nft.load("table ip nat {\n\tdocker\n}\n" + ruleset(Closed()))
    async with kill_switch(nft, on=False) as switch:
        await switch.set(FULL)
        async with switch.hole([API]):
            assert list(nft.tables) == ["ip nat"]
        assert await switch.intact()
    assert list(nft.tables) == ["ip nat"]


async def test_release_takes_back_a_table_there_or_not() -> None:
    nft = FakeNft()
    await nft.load(release())
    await nft.load(ruleset(FULL))
    await nft.load(release())
    assert nft.tables == {}


@pytest.mark.parametrize(
    "text",
    ["delete table inet ss_warp\n", "table inet ss_warp {\n chain {\n}\n", "nonsense\n", "flush ruleset\n"],
)
async def test_the_fake_refuses_what_nft_refuses_and_keeps_what_was_there(text: str) -> None:
    nft = FakeNft()
    await nft.load("table ip nat {\n\tdocker\n}\n")
    with pytest.raises(OSError, match="nft"):
        await nft.load("table ip more {\n}\n" + text)
    assert list(nft.tables) == ["ip nat"]


async def started(nft: FakeNft, *, armed: bool, failure: Exception | None = None) -> str:
    """Live once on a host; return what was loaded first."""
    async with kill_switch(nft, PROXY, after_failure=SHUT) as switch:
        first = str(nft)
        await switch.set(FULL_ON_HOST)
        if armed:
            switch.arm()
        if failure:
            raise failure
    return first


async def test_on_a_host_a_clean_stop_releases_it() -> None:
    for armed in (False, True):
        nft, fresh = FakeNft(), FakeNft()
        await fresh.load(ruleset(PROXY))
        assert await started(nft, armed=armed) == str(fresh)
        assert nft.tables == {}


async def test_on_a_host_a_cancelled_start_releases_it_too() -> None:
    nft = FakeNft()
    async with anyio.create_task_group() as tasks, kill_switch(nft, PROXY, after_failure=SHUT) as switch:
        switch.arm()
        tasks.cancel_scope.cancel()
        await anyio.sleep_forever()
    assert nft.tables == {}


async def test_on_a_host_a_start_that_fails_releases_and_a_later_failure_keeps(
    caplog: pytest.LogCaptureFixture,
) -> None:
    nft, shut = FakeNft(), FakeNft()
    with pytest.raises(ValueError, match="early"):
        await started(nft, armed=False, failure=ValueError("early"))
    assert (nft.tables, caplog.records) == ({}, [])
    with pytest.raises(ValueError, match="late"):
        await started(nft, armed=True, failure=ValueError("late"))
    assert set(nft.tables) == {"inet ss_warp", "arp ss_warp"}
    (line,) = caplog.messages
    assert "nft delete table inet ss_warp" in line
    await shut.load(ruleset(SHUT))
    assert await started(nft, armed=False) == str(shut), "the next start stays shut until there is a tunnel"
    assert nft.tables == {}


async def test_on_a_host_switched_off_nothing_is_loaded(caplog: pytest.LogCaptureFixture) -> None:
    nft = FakeNft()
    await nft.load(ruleset(SHUT))
    async with kill_switch(nft, PROXY, after_failure=SHUT, on=False) as switch:
        await switch.set(FULL_ON_HOST)
        assert nft.tables == {}
    assert "FIREWALL=off" in caplog.text


@pytest.mark.parametrize(
    ("piece", "lacks"), [("fib", "fib daddr"), ("arp", "table arp"), ("ct timeout", "ct timeout")]
)
async def test_an_optional_piece_that_the_kernel_lacks_is_left_out_with_a_line(
    piece: str, lacks: str, caplog: pytest.LogCaptureFixture
) -> None:
    nft = FakeNft(lacks=lacks)
    async with kill_switch(nft) as switch:
        for policy in (FULL, PROXY, FULL_ON_HOST):
            await switch.set(replace(policy, shadowsocks=(Ports(8388, 8388, "udp"),)))
            assert await switch.intact()
            text = nft.tables["inet ss_warp"]
            assert not re.search(lacks, str(nft))
            assert 'oifname "wg0" accept' in text
            assert "ct direction reply accept" in text
        await switch.release()
    (line,) = caplog.messages
    assert f"has no {piece}:" in line


async def test_a_mandatory_piece_that_the_kernel_lacks_is_named() -> None:
    with pytest.raises(PlatformError, match="Could not process rule"):
        async with kill_switch(FakeNft(lacks="ct direction")):
            raise AssertionError("never closed")
