"""Zero Trust: tokens in every wrapping, enrolled once, and refusals that say what to do (T1 to T4)."""

from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from entrypoint.account.registration import AccountWishes, PastedToken, ServiceToken, expiry
from entrypoint.account.replies import ApiError
from entrypoint.settings.values import token_in
from tests.cloudflare.access import Access
from tests.cloudflare.config import TEAM_NAME
from tests.fakes.box import START, Box
from tests.fakes.http import API
from tests.fakes.warp_api import Fault, refusal
from tests.unit.account.teams import served

JWT = Access(clock=lambda: START).mint()
LINK = f"com.cloudflare.warp://{TEAM_NAME}/auth?token={JWT}"


@pytest.mark.parametrize(
    "text",
    [
        JWT,
        f" {JWT}\n",
        LINK,
        f"{LINK}&x=1",
        f"com.cloudflare.warp://x/auth?a=b&token={JWT}",
        f'<meta http-equiv="refresh" content="0;url={LINK}">',
        f"CF_Authorization={JWT}; Secure",
    ],
)
def test_a_token_is_found_in(text: str) -> None:
    assert token_in(text) == JWT


@pytest.mark.parametrize(
    "text",
    ["", "a.b", "https://acme.cloudflareaccess.com/warp", f"https://x/login?meta={JWT}", f"{JWT}.{JWT}"],
)
def test_no_token_is_found_in(text: str) -> None:
    assert token_in(text) is None


@given(st.text(max_size=200))
def test_any_text_is_read_without_a_defect(text: str) -> None:
    token_in(text)
    expiry(text)


def test_when_a_token_ends() -> None:
    assert expiry(JWT) == int(START + 50)
    assert expiry("aa.bb.cc") is None


@pytest.fixture
def box(tmp_path: Path) -> Box:
    box = Box(tmp_path)
    box.wishes = AccountWishes("lab", team=PastedToken(JWT))

    def alter(device: dict[str, Any]) -> dict[str, Any]:
        device["id"] = f"t.{device['id']}"
        device["account"] = {"id": "0" * 32, "account_type": "team", "organization": "acme"}
        device["config"]["interface"]["addresses"] = {"v4": "100.96.0.2", "v6": "2606:4700:cf1:1000::2"}
        return device

    box.site.alter = alter
    return box


@pytest.mark.anyio
async def test_enrolled_once(box: Box) -> None:
    account = await box.start()
    assert (account.kind, account.license_key) == ("team", None)
    assert account.access and account.access.device_id.startswith("t.")
    assert str(account.v4) == "100.96.0.2"
    assert await box.start() == account, "an old token in the environment does no harm"
    assert box.site.calls == [("POST", "/v0a2158/reg")]


@pytest.mark.anyio
async def test_the_token_goes_to_the_api_alone(box: Box) -> None:
    seen: list[httpx.Request] = []
    box.site.on_call = seen.append
    await box.start()
    assert [one.headers["CF-Access-Jwt-Assertion"] for one in seen] == [JWT]
    assert JWT not in repr(box.wishes) and JWT not in box.path.read_text()


REFUSALS = {
    "expired": (refusal(401, "token is expired"), 61, "log in again and start at once"),
    "another's": (refusal(401, "Invalid token"), 0, "the token is another organisation's, or"),
    "too many": (refusal(403, "Maximum number of devices reached"), 0, "policy, posture or device limit"),
    "malformed": (httpx.Response(500), 0, "log in again and start at once"),
    "too often": (httpx.Response(429), 0, "log in again and start at once"),
}


@pytest.mark.anyio
@pytest.mark.parametrize("why", REFUSALS)
async def test_a_refusal_is_explained_and_not_repeated(box: Box, why: str) -> None:
    answer, later, hint = REFUSALS[why]
    box.clock.now += later
    box.site.faults.extend([Fault(answer)] * 2)
    with pytest.raises(ApiError) as caught:
        await box.start()
    assert hint in caught.value.hint
    assert JWT not in str(caught.value)
    assert not box.clock.slept
    assert len(box.site.calls) == {"too many": 2, "expired": 0}.get(why, 1)


@pytest.mark.anyio
async def test_a_lost_connection_is_tried_again_while_the_token_lasts(box: Box) -> None:
    site = box.http.sites.pop(API)

    class Told(list[tuple[str, float]]):
        def append(self, told: tuple[str, float]) -> None:
            super().append(told)
            box.http.sites[API] = site

    box.told = Told()
    assert (await box.start()).kind == "team"
    assert len(box.told) == 1


@pytest.mark.anyio
async def test_a_device_that_must_use_masque_is_told_so(box: Box) -> None:
    before = box.site.alter
    box.site.alter = lambda device: before(device) | {"policy": {"tunnel_protocol": "masque"}}
    with pytest.raises(ApiError, match="must use MASQUE, ss-warp speaks WireGuard"):
        await box.start()


@pytest.mark.anyio
async def test_a_free_account_that_is_kept_stays(box: Box, caplog: pytest.LogCaptureFixture) -> None:
    wishes, box.wishes = box.wishes, AccountWishes("lab")
    box.site.alter = lambda device: device
    account = await box.start()
    box.wishes = wishes
    assert await box.start() == account
    assert "keeping the existing free account" in caplog.text


SERVICE = ServiceToken("acme", "id.access", "the-service-secret")


@pytest.mark.anyio
@pytest.mark.parametrize("way", ["location", "page", "cookie"])
async def test_a_service_token_in_every_way_it_comes(box: Box, way: Any) -> None:
    served(box, Access({"id.access": "the-service-secret"}, way), SERVICE)
    assert (await box.start()).kind == "team"
    assert [one.host for one in box.http.connected] == [TEAM_NAME, "api.cloudflareclient.com"]


@pytest.mark.anyio
async def test_a_bad_service_token_asks_for_no_device(box: Box) -> None:
    served(box, Access({"id.access": "another-secret"}), SERVICE)
    with pytest.raises(ApiError) as caught:
        await box.start()
    assert f"{TEAM_NAME} answered 302 and gave no token" in str(caught.value)
    assert "Service Auth" in caught.value.hint
    assert SERVICE.client_secret not in str(caught.value) + repr(SERVICE)
    assert not box.site.calls


@pytest.mark.anyio
async def test_a_new_token_for_every_try(box: Box) -> None:
    served(box, Access({"id.access": "the-service-secret"}), SERVICE)
    box.site.faults.append(Fault(httpx.Response(500)))
    assert (await box.start()).kind == "team"
    assert [one.host for one in box.http.connected].count(TEAM_NAME) == 2


def test_an_organisation_is_a_name_or_a_domain() -> None:
    assert SERVICE.page == f"https://{TEAM_NAME}/warp"
    assert ServiceToken("a.example", "", "").page == "https://a.example/warp"
