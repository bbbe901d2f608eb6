"""The emulated API where the real one differs by version, place or luck."""

import gzip
import re
from pathlib import Path
from typing import Any

import pytest

from tests import cloudflare
from tests.cloudflare.client import Cloudflare, Edge
from tests.cloudflare.devices import addresses
from tests.cloudflare.faults import bomb, huge
from tests.cloudflare.manners import Manners
from tests.cloudflare.rules import EdgeFaults, device_rules, port_rules
from tests.cloudflare.spoiled import spoiled
from tests.cloudflare.web import Response
from tests.unit.cloudflare.lab import CONFIG, JSON, KEY, OTHER_KEY, Lab

pytestmark = pytest.mark.anyio
V = "/v0a2158"
ZERO_TRUST = {"host": "zero-trust-client.cloudflareclient.com"}


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


async def registered(lab: Lab, key: str = KEY, **more: Any) -> tuple[str, dict[str, str], dict[str, Any]]:
    _, device = await lab.call("POST", f"{V}/reg", {"key": key} | more)
    return f"{V}/reg/{device['id']}", JSON | {"authorization": f"Bearer {device['token']}"}, device


@pytest.mark.parametrize(
    ("manners", "headers", "status"),
    [
        (Manners(only_tls12=True), JSON, 403),  # A2
        (Manners(strict_headers=True), JSON, 403),  # A7
        (Manners(strict_headers=True), JSON | {"user-agent": "x", "cf-client-version": "y"}, 200),
        (Manners(blocked=("203.0.113.0/24",)), JSON, 403),  # A17
        (Manners(blocked=("2001:db8::/32",)), JSON, 200),
        (Manners(), JSON | ZERO_TRUST, 200),  # A6
    ],
)
async def test_a2_a6_a7_a17_who_is_let_in(
    lab: Lab, manners: Manners, headers: dict[str, str], status: int
) -> None:
    lab.api.manners = manners
    got, body = await lab.call("POST", f"{V}/reg", {"key": KEY}, headers)
    assert got == status
    assert status == 200 or body == "error code: 1020"


async def test_a4_every_envelope(lab: Lab) -> None:
    for name, version, has in (("bare", "v0i1", False), ("wrapped", "v0a1", True), ("list", "v0a1", True)):
        lab.api.manners = Manners(envelope=name)  # type: ignore[arg-type]
        _, body = await lab.call("POST", f"/{version}/reg", {"key": KEY})
        assert ("result" in body) is has
        assert isinstance(body.get("result"), list) is (name == "list")


async def test_a9_a_second_device_with_the_same_key(lab: Lab) -> None:
    await registered(lab)
    assert (await lab.call("POST", f"{V}/reg", {"key": KEY}))[0] == 200
    lab.api.manners = Manners(same_key="refuse")
    status, body = await lab.call("POST", f"{V}/reg", {"key": KEY})
    assert (status, body["errors"][0]["code"]) == (400, 1001)


@pytest.mark.parametrize("status", [401, 404, 410])
async def test_a10_a11_gone_deleted_or_revoked(lab: Lab, status: int) -> None:
    lab.api.manners = Manners(gone=status)
    path, right, device = await registered(lab)
    _, others, _ = await registered(lab, OTHER_KEY)
    assert (await lab.call("GET", path, headers=others))[0] == 401
    await lab.api.change(device["id"], {"revoked": True})  # T5
    assert not lab.told[-1].served
    assert (await lab.call("GET", path, headers=right))[0] == status
    await lab.api.change(device["id"], {"revoked": False})
    assert lab.told[-1].served
    assert (await lab.call("GET", path, headers=right))[0] == 200
    await lab.call("DELETE", path, headers=right)
    assert (await lab.call("DELETE", path, headers=right))[0] == status


async def test_a5_a22_devices_of_an_account(lab: Lab) -> None:
    """Calls 6 to 12: list, rename, deactivate, delete, self."""
    lab.api.accounts.licences.sold["L"] = "limited"
    path, right, one = await registered(lab, name="one")
    other, token, two = await registered(lab, OTHER_KEY)
    for where, who in ((path, right), (other, token)):
        assert (await lab.call("PUT", f"{where}/account", {"license": "L"}, who))[0] == 200
    account = (await lab.call("GET", f"{path}/account", headers=right))[1]
    assert (account["account_type"], account["license"]) == ("limited", "L")
    assert account["id"] == (await lab.call("GET", f"{other}/account", headers=token))[1]["id"]
    listed = (await lab.call("GET", f"{path}/account/devices", headers=right))[1]
    assert [(one.get("name"), one["active"]) for one in listed] == [("one", True), (None, True)]
    mate = f"{path}/account/reg/{two['id']}"
    status, listed = await lab.call("PATCH", mate, {"name": "two"}, right)
    assert (status, [one["name"] for one in listed]) == (200, ["one", "two"])
    status, listed = await lab.call("PATCH", mate, {"active": False}, right)
    assert (status, [one["id"] for one in listed]) == (200, [one["id"]])
    assert (await lab.call("DELETE", mate, headers=right))[0] == 404
    fresh = (await lab.call("POST", f"{path}/account/license", {}, right))[1]["license"]
    assert (await lab.call("PUT", f"{other}/account", {"license": "L"}, token))[0] == 400
    assert (await lab.call("PUT", f"{other}/account", {"license": fresh}, token))[0] == 200
    assert await lab.call("DELETE", mate, headers=right) == (204, "")


async def test_a21_unbound_the_edge_is_silent_until_it_is_bound_again(lab: Lab) -> None:
    path, right, device = await registered(lab)
    assert (await lab.call("DELETE", f"{path}/account", headers=right))[0] == 200
    assert not lab.told[-1].served
    own = {"license": device["account"]["license"]}
    assert (await lab.call("PUT", f"{path}/account", own, right))[0] == 200
    assert lab.told[-1].served


async def test_a23_a_new_key_may_bring_other_addresses(lab: Lab) -> None:
    lab.api.manners = Manners(moves=True)
    path, right, device = await registered(lab)
    _, after = await lab.call("PUT", path, {"key": OTHER_KEY}, right)
    assert after["id"] == device["id"]
    before6, after6 = (one["config"]["interface"]["addresses"]["v6"] for one in (device, after))
    assert before6 != after6 and lab.told[-1].address6 == after6


async def test_a24_t7_masque_ends_wireguard(lab: Lab) -> None:
    path, right, _ = await registered(lab)
    body = {"key": "PEM", "key_type": "secp256r1", "tunnel_type": "masque"}
    _, after = await lab.call("PATCH", path, body, right)
    assert after["policy"] == {"tunnel_protocol": "masque"}
    peer = after["config"]["peers"][0]
    assert peer["public_key"].startswith("-----BEGIN") and peer["endpoint"]["v4"].startswith("162.159.198.1")
    assert not lab.told[-1].served
    lab.api.manners = Manners(masque=True)
    _, _, device = await registered(lab)
    assert device["tunnel_type"] == "masque" and not lab.told[-1].served


async def test_t1_t2_t3_access_in_its_moods(lab: Lab) -> None:
    access = lab.api.access
    access.single_use, access.malformed = True, 401
    token = access.mint()
    right = JSON | {"cf-access-jwt-assertion": token}
    assert (await lab.call("POST", f"{V}/reg", {"key": KEY}, right))[0] == 200
    assert (await lab.call("POST", f"{V}/reg", {"key": KEY}, right))[0] == 401
    assert (await lab.call("POST", f"{V}/reg", {"key": KEY}, JSON | {"cf-access-jwt-assertion": "x"}))[
        0
    ] == 401
    access.skew = 3600.0
    access.single_use = False
    late = JSON | {"cf-access-jwt-assertion": token}
    status, body = await lab.call("POST", f"{V}/reg", {"key": KEY}, late)
    assert (status, "token is expired" in body["errors"][0]["message"]) == (401, True)


def test_a15_floods_are_what_they_say() -> None:
    answer = spoiled(Response(200, b"{}"), huge(3 << 20))
    assert (answer.length, sum(map(len, answer.blocks))) == (3 << 20, 3 << 20)
    packed = spoiled(Response(200, b"{}"), bomb(3 << 20))
    assert gzip.decompress(packed.body) == bytes(3 << 20) and len(packed.body) < 16 << 10


def test_e2_a_port_that_refuses_is_not_rewritten() -> None:
    faults = EdgeFaults(refused=(500,))
    text = device_rules(CONFIG, "2606:4700:110:8::2", addresses(CONFIG, 2), ("four", "six"), faults)
    assert "daddr 162.159.192.0/24 udp dport 500 notrack" not in text
    assert "daddr 162.159.192.0/24 udp dport 1701 notrack" in text
    assert "tcp dport 443 reject with tcp reset" in port_rules(443, "refused")
    with pytest.raises(KeyError):
        port_rules(443, "ajar")


def test_the_checklist_has_every_row_and_names_what_there_is() -> None:
    text = (Path(__file__).parents[2] / "cloudflare/CHECKLIST.md").read_text()
    rows = re.findall(r"^\| ((?:[ATE]\d+(?:, )?)+) \|[^|]+\|([^|]*)\|$", text, re.MULTILINE)
    ids = [one for row, _ in rows for one in row.split(", ")]
    wanted = [("A", 26), ("T", 9), ("E", 25)]
    assert sorted(ids) == sorted(f"{kind}{number}" for kind, last in wanted for number in range(1, last + 1))
    named = set(re.findall(r"`(?:edge\.)?(\w+)(?:`|\()", " ".join(switch for _, switch in rows)))
    known = {*dir(Cloudflare), *dir(Edge), *dir(cloudflare), "Lab"}
    assert named - known == set(), "switches that are not there"
