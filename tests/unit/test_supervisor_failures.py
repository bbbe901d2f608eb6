"""Every step fails once: a sentence, the right exit code, nothing left, and the next start works."""

import errno
import os
from collections.abc import Iterator
from ipaddress import ip_address

import pytest

from entrypoint.__main__ import guarded
from entrypoint.errors import PlatformError
from tests.fakes.world import FakeWorld, in_memory

pytestmark = pytest.mark.anyio
CONNECTED, UNDO, STATE, PLATFORM = 0, 71, 74, 77


@pytest.fixture
def world(anyio_backend: str) -> Iterator[FakeWorld]:
    with in_memory() as world:
        yield world


def told(failure: Exception | None, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Return exit code and the one line that a person gets to see."""

    def fail() -> int:
        if failure:
            raise failure
        return CONNECTED

    capsys.readouterr()
    code = guarded(fail)
    said = capsys.readouterr().err
    assert "Traceback" not in said, said
    assert said.count("\n") == (0 if code == CONNECTED else 1)
    assert said.startswith("ss-warp: ") or not said
    return code, said


async def fails(world: FakeWorld, capsys: pytest.CaptureFixture[str], **environ: str) -> tuple[int, str]:
    """Start, and look at what is left: nothing, or what the sentence tells and the next start removes."""
    closed = await world.closed()
    code, said = told(await world.attempt(PRINT_LINK="off", **environ), capsys)
    assert code in (CONNECTED, UNDO, PLATFORM), said
    if code == UNDO:
        assert "cannot undo" in said
        left = set(str(world.netlink).splitlines()) - set(closed.splitlines())
        blind = world.netlink.deaf_at[0]  # what is not listed cannot be taken back
        assert blind or len(left) <= 1, f"one refusal keeps the rest from being taken back: {left}"
        world.netlink.fail_at, world.nft.fail_at = {}, set()
        assert told(await world.attempt(**environ), capsys) == (CONNECTED, "")
    if world.nft.tables.keys() != {"ip others"}:
        assert str(world) == closed
    assert not world.processes.alive()
    return code, said


UP, DOWN = range(1, 28), range(28, 56)
"""The chain makes 27 changes on its way up, and as many on its way down."""


@pytest.mark.parametrize(
    ("number", "code"),
    [
        *((number, errno.EPERM) for number in (*UP, *DOWN)),
        *((number, code) for number in UP for code in (errno.EOPNOTSUPP, errno.EEXIST, errno.ENODEV)),
    ],
)
async def test_a_change_that_the_kernel_refuses(
    world: FakeWorld, capsys: pytest.CaptureFixture[str], number: int, code: int
) -> None:
    world.netlink.fail_at = {number: code}
    exit_code, said = await fails(world, capsys)
    if exit_code == PLATFORM and code == errno.EPERM:
        assert "add cap_add: [NET_ADMIN]" in said


@pytest.mark.parametrize("number", range(1, 24))
async def test_a_listing_that_the_kernel_refuses(
    world: FakeWorld, capsys: pytest.CaptureFixture[str], number: int
) -> None:
    world.netlink.deaf_at = number, errno.EPERM
    await fails(world, capsys)


@pytest.mark.parametrize("mode", ["full", "proxy"])
@pytest.mark.parametrize("number", range(1, 12))
async def test_a_transaction_that_nft_refuses(
    world: FakeWorld, capsys: pytest.CaptureFixture[str], number: int, mode: str
) -> None:
    world.nft.fail_at = {number}
    code, said = await fails(world, capsys, ROUTE_MODE=mode)
    if code == PLATFORM:
        assert said.startswith("ss-warp: cannot load the firewall: nft: ")


@pytest.mark.parametrize("number", range(1, 8))
@pytest.mark.parametrize(
    "error", [ConnectionResetError(104, "Connection reset by peer"), PlatformError("no such program")]
)
async def test_a_process_that_does_not_start_or_does_not_answer(
    world: FakeWorld, capsys: pytest.CaptureFixture[str], number: int, error: Exception
) -> None:
    world.processes.fail_at = {number: error}
    await fails(world, capsys)


@pytest.mark.parametrize("number", range(1, 12))
async def test_a_question_without_answer_is_asked_again(
    world: FakeWorld, capsys: pytest.CaptureFixture[str], number: int
) -> None:
    world.http.fail_at = {number: TimeoutError()}
    assert await fails(world, capsys) == (CONNECTED, "")


@pytest.mark.parametrize("mode", ["full", "proxy"])
async def test_without_net_admin_nothing_happens(
    world: FakeWorld, capsys: pytest.CaptureFixture[str], mode: str
) -> None:
    before = str(world)
    world.netlink.denied = world.nft.denied = True
    code, said = await fails(world, capsys, ROUTE_MODE=mode)
    assert (code, said) == (
        PLATFORM,
        "ss-warp: cannot create a WireGuard interface: Operation not permitted (add cap_add: [NET_ADMIN])\n",
    )
    assert str(world) == before
    assert not world.http.connected, "no account is registered for nothing"


async def test_without_a_tun_node_nothing_happens(
    world: FakeWorld, capsys: pytest.CaptureFixture[str]
) -> None:
    before = str(world)
    (world.directory / "tun").unlink()
    code, said = await fails(world, capsys)
    assert code == PLATFORM
    assert "add devices: [/dev/net/tun]" in said
    assert str(world) == before
    assert not world.http.connected


async def test_a_device_that_the_api_describes_badly_is_one_line(
    world: FakeWorld, capsys: pytest.CaptureFixture[str]
) -> None:
    closed = await world.closed()
    world.http.api.alter = lambda device: device | {"config": None}
    code, said = told(await world.attempt(), capsys)
    assert code != 70
    assert "cannot use the registered device: config: missing" in said
    assert str(world) == closed


# The volume.


@pytest.mark.parametrize("name", ["account.json", "shadowsocks.json", "network.json"])
@pytest.mark.parametrize("content", ["garbage", "a directory"])
async def test_a_file_that_is_not_ours_is_named(
    world: FakeWorld, capsys: pytest.CaptureFixture[str], name: str, content: str
) -> None:
    # Our numbers are settled before anything is changed.
    left = str(world) if name == "network.json" else await world.closed()
    if content == "garbage":
        (world.state / name).write_text("{")
    else:
        (world.state / name).mkdir()
    code, said = told(await world.attempt(), capsys)
    assert code == STATE
    assert name in said
    assert str(world) == left


async def test_a_volume_that_is_not_there(world: FakeWorld, capsys: pytest.CaptureFixture[str]) -> None:
    before = str(world)
    world.state.rmdir()
    code, said = told(await world.attempt(), capsys)
    assert (code, "mount a volume" in said) == (STATE, True)
    assert str(world) == before


async def test_a_volume_that_goes_while_the_account_is_made(
    world: FakeWorld, capsys: pytest.CaptureFixture[str]
) -> None:
    closed = await world.closed()

    def goes(_: object) -> None:
        world.state.rename(world.directory / "gone")

    world.http.api.on_call = goes
    code, said = told(await world.attempt(), capsys)
    assert code == STATE
    assert "does not exist" in said
    assert str(world) == closed


async def test_a_second_one_on_the_same_volume_says_who_has_it(
    world: FakeWorld, capsys: pytest.CaptureFixture[str]
) -> None:
    async with world.serving():
        up = str(world)
        code, said = told(await world.attempt(), capsys)
        assert code == 75
        assert f"is in use by process {os.getpid()}" in said
        assert str(world) == up
    assert len(world.http.api.calls) == 1


async def test_where_ssserver_refuses_its_configuration_it_is_our_bug(
    world: FakeWorld, capsys: pytest.CaptureFixture[str]
) -> None:
    closed = await world.closed()
    world.processes.refuse["ssserver"] = "ERROR loading config"
    world.processes.refuse_code = 78
    code, said = told(await world.attempt(), capsys)
    assert (code, said) == (70, "ss-warp: ssserver rejected its configuration (exit code 78)\n")
    assert str(world) == closed


async def test_an_ipv6_address_that_only_the_tunnel_may_have_is_refused(
    world: FakeWorld, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = ip_address("fd00:18::5")
    world.http.api.alter = lambda device: {
        **device,
        "config": device["config"] | {"interface": {"addresses": {"v6": str(mine)}}},
    }
    code, said = told(await world.attempt(), capsys)
    assert f"{mine} is this machine's own" in said
    assert code != 70


@pytest.mark.parametrize("taken", ["172.18.0.5", "172.18.0.77", "172.18.0.1"])
async def test_a_tunnel_address_that_is_taken_here_is_translated(world: FakeWorld, taken: str) -> None:
    """Ours, a neighbour's, the gateway: every consumer device has 172.16.0.2, and so has many a network."""
    closed = await world.closed()
    world.http.api.alter = lambda device: {
        **device,
        "config": device["config"] | {"interface": {"addresses": {"v4": taken}}},
    }
    async with world.serving():
        assert "192.0.0.2/32 dev wg0" in str(world)
        assert f"{taken}/32 dev wg0" not in str(world)
        text = world.nft.tables["inet ss_warp"]
        assert f'oifname "wg0" ip saddr != {taken} snat ip to {taken}' in text
        assert f"ip daddr {taken} drop" not in text, "the neighbour of that address is reached"
    assert str(world) == closed
