"""The emulated API as a table: what it accepts, refuses, wraps and counts. No socket is opened."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from tests.cloudflare.devices import Devices
from tests.cloudflare.faults import created_but_500, override, too_many
from tests.unit.cloudflare.lab import JSON, KEY, OTHER_KEY, Lab

pytestmark = pytest.mark.anyio


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


async def test_a_registration_has_the_real_shape(lab: Lab) -> None:
    status, body = await lab.call("POST", "/v0a2158/reg", {"key": KEY, "locale": "en_US", "tos": "then"})
    assert status == 200
    endpoint = {"v4": "162.159.192.1:0", "v6": "[2606:4700:d0::a29f:c001]:0"}
    peer = {
        "public_key": lab.devices.edge_public_key,
        "endpoint": endpoint | {"host": "engage.cloudflareclient.com:2408"},
    }
    assert body["config"]["peers"] == [peer]
    assert body["config"]["interface"]["addresses"]["v4"] == "172.16.0.2"
    assert body["config"]["interface"]["addresses"]["v6"].startswith("2606:4700:110:8")
    assert len(base64.b64decode(body["config"]["client_id"])) == 3
    assert (body["type"], body["locale"], body["tos"], body["key"]) == ("a", "en-US", "then", KEY)
    assert len(body["account"]["license"]) == 26 and body["token"]
    assert not {"policy", "key_type", "tunnel_type"} & body.keys()
    assert [one.key for one in lab.told] == [KEY]


@pytest.mark.parametrize(("version", "wrapped"), [("v0a2158", False), ("v0i2308311933", True), ("v0", True)])
async def test_success_is_wrapped_by_version(lab: Lab, version: str, wrapped: bool) -> None:
    _, body = await lab.call("POST", f"/{version}/reg", {"key": KEY})
    assert ("result" in body) is wrapped
    assert (body["result"] if wrapped else body)["token"]


async def test_newer_versions_name_ports_and_types(lab: Lab) -> None:
    _, body = await lab.call("POST", "/v0a4471/reg", {"key": KEY})
    assert body["config"]["peers"][0]["endpoint"]["ports"] == [2408, 500, 1701, 4500]
    assert (body["key_type"], body["policy"]) == ("curve25519", {"tunnel_protocol": "wireguard"})


@pytest.mark.parametrize(
    ("body", "headers", "errors"),
    [
        ({"tos": "x"}, JSON, ["Invalid registration request"]),
        (b"{", JSON, ["Invalid registration request"]),
        ([], JSON, ["Invalid registration request"]),
        ({"key": KEY}, {"content-type": "text/plain"}, ["Invalid registration request"]),
        ({"key": KEY[:40]}, JSON, [{"code": 1001, "message": "Invalid public key"}]),
        ({"key": "é" * 44}, JSON, [{"code": 1001, "message": "Invalid public key"}]),
        ({"key": 7}, JSON, [{"code": 1001, "message": "Invalid public key"}]),
    ],
)
async def test_a_bad_registration_is_refused(
    lab: Lab, body: object, headers: dict[str, str], errors: list[Any]
) -> None:
    status, answer = await lab.call("POST", "/v0a2158/reg", body, headers)
    assert (status, answer["errors"], answer["success"]) == (400, errors, False)
    assert lab.devices.all() == []


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/v0a2158/reg"), ("GET", "/v0a2158/reg/"), ("POST", "/v1/reg"), ("GET", "/")]
)
async def test_what_is_no_call_is_not_found_in_plain_text(lab: Lab, method: str, path: str) -> None:
    assert await lab.call(method, path) == (404, "404 page not found")


async def test_the_token_guards_the_device(lab: Lab) -> None:
    _, device = await lab.call("POST", "/v0a2158/reg", {"key": KEY})
    path, right = f"/v0a2158/reg/{device['id']}", {"authorization": f"Bearer {device['token']}"}
    for headers in ({}, {"authorization": "Bearer no"}, {"authorization": device["token"]}):
        assert (await lab.call("GET", path, headers=headers))[0] == 401
    status, read = await lab.call("GET", path, headers=right)
    assert (status, read) == (200, {k: v for k, v in device.items() if k != "token"})
    assert (await lab.call("GET", "/v0a2158/reg/unknown", headers=right))[0] == 404


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
async def test_a_new_key_and_deletion_reach_the_edge(lab: Lab, method: str) -> None:
    _, device = await lab.call("POST", "/v0a2158/reg", {"key": KEY})
    path, right = f"/v0a2158/reg/{device['id']}", JSON | {"authorization": f"Bearer {device['token']}"}
    status, changed = await lab.call(method, path, {"key": OTHER_KEY}, right)
    assert (status, changed["key"], changed["config"]) == (200, OTHER_KEY, device["config"])
    assert await lab.call("DELETE", path, headers=right) == (204, "")
    assert (await lab.call("DELETE", path, headers=right))[0] == 404
    assert [(one.key, one.active) for one in lab.told] == [(KEY, True), (OTHER_KEY, True), (OTHER_KEY, False)]


async def test_calls_are_counted_with_what_they_brought_and_got(lab: Lab) -> None:
    lab.api.faults.add(too_many("5"), created_but_500())
    for _ in range(3):
        await lab.call("POST", "/v0a2158/reg", {"key": KEY})
    assert [(one.method, one.path, one.status) for one in lab.api.calls] == [
        ("POST", "/v0a2158/reg", 429),
        ("POST", "/v0a2158/reg", 500),
        ("POST", "/v0a2158/reg", 200),
    ]
    assert json.loads(lab.api.calls[0].body) == {"key": KEY} and lab.api.calls[0].headers == JSON
    assert len(lab.devices.all()) == 2


async def test_hostile_values_are_put_where_they_belong(lab: Lab) -> None:
    hostile = override({"config.peers.0.endpoint.v4": "10.0.0.1:2408"}).only("POST", "reg", times=2)
    lab.api.faults.add(hostile)
    for version, times in (("v0a2158", 1), ("v0i1", 1), ("v0a2158", 0)):
        _, body = await lab.call("POST", f"/{version}/reg", {"key": KEY})
        endpoint = body.get("result", body)["config"]["peers"][0]["endpoint"]
        assert (endpoint["v4"] == "10.0.0.1:2408") is bool(times)


async def test_devices_and_edge_key_outlive_the_process(lab: Lab, tmp_path: Path) -> None:
    await lab.call("POST", "/v0a2158/reg", {"key": KEY})
    again = Devices(tmp_path)
    assert (again.all(), again.edge_key) == (lab.devices.all(), lab.devices.edge_key)
