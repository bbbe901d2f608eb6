"""Registered and usable are two steps: what an odd answer created is never created again."""

from collections.abc import Callable
from ipaddress import ip_address
from itertools import pairwise
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import httpx
import pytest

from entrypoint.account.lifecycle import apply_pending
from entrypoint.account.registration import AccountWishes, PastedToken, ServiceToken
from entrypoint.account.replies import UNCERTAIN, ApiError
from entrypoint.account.store import PendingRegistration, load, write
from tests.cloudflare.access import Access
from tests.conftest import Record
from tests.fakes.box import START, Box
from tests.fakes.http import API
from tests.fakes.warp_api import EDGE_KEY, Fault, refusal
from tests.unit.account.teams import served

pytestmark = pytest.mark.anyio
type Alter = Callable[[dict[str, Any]], Any]


def endpoint(**members: object) -> Alter:
    def alter(device: dict[str, Any]) -> dict[str, Any]:
        device["config"]["peers"][0]["endpoint"].update(members)
        return device

    return alter


def part(name: str, **members: object) -> Alter:
    def alter(device: dict[str, Any]) -> dict[str, Any]:
        device[name].update(members)
        return device

    return alter


def inner(device: dict[str, Any]) -> dict[str, Any]:
    device["config"]["interface"]["addresses"]["v6"] = ""
    return device


def two_peers(device: dict[str, Any]) -> dict[str, Any]:
    good = device["config"]["peers"][0]
    pem = "-----BEGIN PUBLIC KEY-----\nMFk\n-----END PUBLIC KEY-----\n"
    device["config"]["peers"] = [{"public_key": pem, "endpoint": good["endpoint"]}, good]
    return device


ODD: dict[str, Alter] = {
    "v6 [::]:0": endpoint(v6="[::]:0"),
    "v6 empty": endpoint(v6=""),
    "host empty": endpoint(host=""),
    "ports as strings": endpoint(ports=["2408", "500"]),
    "client id empty": part("config", client_id=""),
    "client id for URLs": part("config", client_id="-_AB"),
    "inner v6 empty": inner,
    "licence empty": part("account", license=""),
    "type empty": part("account", account_type=""),
    "type in words": part("account", account_type="WARP Plus"),
    "masque": lambda device: {"tunnel_type": "masque"} | device,
    "protocol empty": lambda device: device | {"policy": {"tunnel_protocol": ""}},
    "two peers, the first for MASQUE": two_peers,
    "a long token": lambda device: device | {"token": "x" * 600},
}
WORSE: dict[str, Alter] = {
    "no peers": part("config", peers=[]),
    "masque for good": lambda device: device | {"tunnel_type": "masque"},
    "no addresses": part("config", interface=None),
    "loopback": endpoint(v4="127.0.0.1:0", v6=None, host=None),
}


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return Box(tmp_path)


async def starts(box: Box, count: int = 5) -> list[str]:
    """Start so many times; return what became of each."""
    seen = []
    for _ in range(count):
        try:
            await box.start()
            seen.append("ok")
        except ApiError as error:
            seen.append(str(error.exit_code))
    return seen


@pytest.mark.parametrize("case", ODD)
async def test_an_odd_answer_is_one_device_that_connects(box: Box, case: str, record: Record) -> None:
    box.site.alter = ODD[case]
    assert await starts(box) == ["ok"] * 5
    assert len(box.site.devices) == 1
    record(f"odd answer: {case}", "1 device in 5 starts, usable")


@pytest.mark.parametrize("case", WORSE)
async def test_an_unusable_answer_is_one_device_that_is_read_again(box: Box, case: str) -> None:
    box.site.alter = WORSE[case]
    assert await starts(box) == ["69"] * 5
    assert len(box.site.devices) == 1
    assert [method for method, _ in box.site.calls].count("POST") == 1
    (token,) = (device["token"] for device in box.site.devices.values())
    assert box.kept()["pending"]["device"]["token"] == token
    box.site.alter = lambda device: device
    account = await box.start()
    assert account.access and account.access.token == token
    assert "pending" not in box.kept()


async def test_a_service_token_uses_one_seat(box: Box, record: Record) -> None:
    def alter(device: dict[str, Any]) -> dict[str, Any]:
        device["account"] = {"id": "0" * 32, "account_type": "team"}
        return WORSE["no peers"](device)  # type: ignore[no-any-return]

    service = ServiceToken("acme", "id.access", "the-service-secret")
    served(box, Access({"id.access": "the-service-secret"}, "location"), service)
    box.site.alter = alter
    await starts(box, 6)
    assert len(box.site.devices) == 1
    box.site.alter = lambda device: device
    assert (await box.start()).kind == "team", "what it was enrolled as"
    record("a service token and an answer that cannot be used, 6 starts", "1 seat")


async def test_a_machine_with_the_devices_inner_address_registers_once(box: Box) -> None:
    box.own = (ip_address("172.16.0.2"),)
    assert await starts(box) == ["ok"] * 5
    assert len(box.site.devices) == 1


async def test_another_key_in_the_answer_is_set_right_at_once(box: Box) -> None:
    box.site.faults.append(Fault(httpx.Response(500), method="PUT"))
    seen = 0

    def alter(device: dict[str, Any]) -> dict[str, Any]:
        nonlocal seen
        seen += 1
        return device | {"key": EDGE_KEY} if seen == 1 else device

    box.site.alter = alter
    await box.start()
    assert [method for method, _ in box.site.calls] == ["POST", "PUT", "GET"]
    assert len(box.site.devices) == 1


async def test_killed_during_the_call_again_and_again_it_calls_no_faster(box: Box) -> None:
    posts: list[float] = []

    async def site(request: httpx.Request) -> httpx.Response:
        posts.append(box.clock.now)
        assert box.kept()["pending"]["due"] >= box.clock.now + UNCERTAIN
        life.cancel()
        await anyio.sleep_forever()
        raise AssertionError

    box.http.sites[API] = site
    for _ in range(5):
        with anyio.CancelScope() as life:
            await box.start()
        box.clock.now += 5
    gaps = [later - earlier for earlier, later in pairwise(posts)]
    assert all(gap >= UNCERTAIN for gap in gaps), gaps


async def test_a_device_that_is_gone_before_it_was_usable_is_replaced_when_that_is_said_twice(
    box: Box,
) -> None:
    box.site.alter = WORSE["no peers"]
    await starts(box, 1)
    box.site.devices.clear()
    box.site.alter = lambda device: device
    begun = box.clock.now
    await box.start()
    assert box.clock.now - begun >= 300
    assert [method for method, _ in box.site.calls].count("POST") == 2


async def test_an_unusable_device_is_unregistered_by_command(box: Box) -> None:
    box.site.alter = WORSE["no peers"]
    await starts(box, 1)
    stored = load(box.path)
    assert isinstance(stored, PendingRegistration) and stored.device
    leaving = PendingRegistration(stored.private_key, stored.api, device=stored.device, leaving=True)
    write(box.path, leaving)
    assert await apply_pending(box.directory, leaving, box.api, box.clock, None) is None
    assert not box.site.devices and not box.path.exists()


async def test_a_refusal_waits_only_for_what_was_refused(box: Box) -> None:
    """A person who logs in again after an expired token is not made to wait until that one expires, too."""
    tokens = Access(clock=lambda: box.clock.now)
    box.site.alter = part("account", account_type="team")
    box.site.faults.append(Fault(refusal(401, "Invalid token")))
    box.wishes = AccountWishes("lab", team=PastedToken(tokens.mint()))
    with pytest.raises(ApiError):
        await box.start()
    box.clock.now += 20
    box.wishes = AccountWishes("lab", team=PastedToken(tokens.mint()))
    assert (await box.start()).kind == "team"
    assert not box.clock.slept


async def test_the_same_refused_token_waits_and_an_expired_one_costs_no_call(box: Box) -> None:
    tokens = Access(clock=lambda: box.clock.now)
    box.wishes = AccountWishes("lab", team=PastedToken(tokens.mint()))
    box.clock.now += 70
    with pytest.raises(ApiError, match="expired"):
        await box.start()
    assert not box.site.calls
    assert not box.clock.slept
    with pytest.raises(ApiError, match="expired"):
        await box.start()
    assert sum(box.clock.slept) > 200


async def test_what_the_api_demands_of_its_callers_is_waited_for_whatever_is_asked(box: Box) -> None:
    box.site.faults.append(Fault(httpx.Response(500)))
    with anyio.CancelScope() as life:

        async def sleep(seconds: float) -> None:
            life.cancel()
            await anyio.lowlevel.checkpoint()

        box.clock.sleep = sleep  # type: ignore[method-assign]
        await box.start()
    due = box.kept()["pending"]["due"]
    again = Box(box.directory)
    again.clock.now = START + 1
    again.wishes = AccountWishes("another name")
    await again.start()
    assert again.clock.now >= due
