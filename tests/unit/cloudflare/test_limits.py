"""The emulated API's licences (A19, A20) and its budget of calls (A16). No socket is opened."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cloudflare.devices import Device
from tests.cloudflare.limits import Budget
from tests.unit.cloudflare.lab import JSON, KEY, Lab

pytestmark = pytest.mark.anyio
LICENCE = "Ab12Cd34-Ef56Gh78-Ij90Kl12"


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    lab = Lab(tmp_path)
    lab.api.accounts.licences.sold[LICENCE] = "unlimited"
    yield lab


async def registered(lab: Lab) -> tuple[str, dict[str, str], dict[str, Any]]:
    _, device = await lab.call("POST", "/v0a2158/reg", {"key": KEY})
    return f"/v0a2158/reg/{device['id']}", JSON | {"authorization": f"Bearer {device['token']}"}, device


async def test_a_licence_moves_the_device_to_its_account(lab: Lab) -> None:
    path, right, device = await registered(lab)
    status, partial = await lab.call("PUT", f"{path}/account", {"license": LICENCE}, right)
    assert status == 200
    assert not {"account_type", "license", "usage"} & partial.keys()
    assert partial["created"] == "0001-01-01T00:00:00Z"
    _, now = await lab.call("GET", path, headers=right)
    assert (now["account"]["account_type"], now["account"]["license"]) == ("unlimited", LICENCE)
    assert now["account"]["id"] == partial["id"] != device["account"]["id"]
    assert now["id"] == device["id"]


async def test_its_own_licence_changes_nothing(lab: Lab) -> None:
    path, right, device = await registered(lab)
    own = device["account"]["license"]
    assert (await lab.call("PUT", f"{path}/account", {"license": own}, right))[0] == 200
    assert (await lab.call("GET", path, headers=right))[1]["account"]["id"] == device["account"]["id"]


@pytest.mark.parametrize("key", ["nonsense", None, 7])
async def test_what_was_not_sold_is_refused(lab: Lab, key: object) -> None:
    path, right, _ = await registered(lab)
    status, answer = await lab.call("PUT", f"{path}/account", {"license": key}, right)
    assert (status, answer["errors"]) == (400, [{"code": 1000, "message": "Invalid license"}])


async def test_the_sixth_device_is_one_too_many_until_one_goes(lab: Lab) -> None:
    for _ in range(5):
        path, right, _ = await registered(lab)
        assert (await lab.call("PUT", f"{path}/account", {"license": LICENCE}, right))[0] == 200
    sixth, token, _ = await registered(lab)
    status, answer = await lab.call("PUT", f"{sixth}/account", {"license": LICENCE}, token)
    assert (status, answer["errors"][0]["code"]) == (400, 1056)
    await lab.call("DELETE", path, headers=right)
    assert (await lab.call("PUT", f"{sixth}/account", {"license": LICENCE}, token))[0] == 200


async def test_a_device_that_was_connected_stays_a_free_one_at_the_edge(lab: Lab) -> None:
    path, right, _ = await registered(lab)
    lab.api.accounts.connected = lambda device: isinstance(device, Device)
    await lab.call("PUT", f"{path}/account", {"license": LICENCE}, right)
    assert lab.devices.all()[0].free_session


async def test_revoked_is_free_again(lab: Lab) -> None:
    path, right, _ = await registered(lab)
    await lab.call("PUT", f"{path}/account", {"license": LICENCE}, right)
    lab.api.revoke(LICENCE)
    assert (await lab.call("GET", path, headers=right))[1]["account"]["account_type"] == "free"
    assert (await lab.call("PUT", f"{path}/account", {"license": "x"}, right))[0] == 400


async def test_the_fourth_call_in_a_minute_is_too_many(lab: Lab) -> None:
    now = [0.0]
    lab.api.budget = Budget(3, 60, "30", clock=lambda: now[0])
    for moment, status in ((0, 200), (1, 200), (2, 200), (3, 429), (60, 429), (62, 200), (200, 200)):
        now[0] = moment
        assert (await lab.call("GET", "/v0a2158/client_config"))[0] == status, moment
