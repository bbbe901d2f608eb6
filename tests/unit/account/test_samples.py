"""Files as people have them: read when they hold a usable WireGuard key, else refused by the form's name."""

import json
from ipaddress import ip_address
from pathlib import Path

import pytest

from entrypoint.account.formats import read_profile
from entrypoint.account.model import parse_account
from entrypoint.strict_json import InvalidError
from tests.unit.account.devices import NOW

SAMPLES = Path(__file__).parent / "samples"
KEY = "4+y30Wg+8239bG/V+Rk7nRVb0zegFizMoFIm5/w/dDc="
PEER = "bmXOC+F1FxEMF9dyiK2H5/1SUtzH0JuVo51h2wPfgyo="
RESERVED = bytes([193, 29, 7])

READ: dict[str, tuple[str, str, str | None, bytes | None]] = {
    # form, first endpoint, v4 inside, reserved
    "01-p3terx-dual.conf": ("a WireGuard profile", "162.159.192.1:2408", "172.16.0.2", None),
    "02-p3terx-nonglobal.conf": (
        "a WireGuard profile",
        "engage.cloudflareclient.com:2408",
        "172.16.0.2",
        None,
    ),
    "03-one-postup.conf": ("a WireGuard profile", "162.159.192.1:2408", "172.16.0.2", None),
    "04-amnezia.conf": ("a WireGuard profile", "engage.cloudflareclient.com:2408", "172.16.0.2", None),
    "05-amnezia-i1.conf": ("a WireGuard profile", "162.159.192.5:4500", "172.16.0.2", None),
    "08-singbox.json": ("sing-box's WireGuard", "engage.cloudflareclient.com:2408", "172.16.0.2", RESERVED),
    "09-xray.json": ("an Xray outbound", "engage.cloudflareclient.com:2408", "172.16.0.2", RESERVED),
    "10-mihomo.yaml": (
        "mihomo's WireGuard proxy",
        "engage.cloudflareclient.com:2408",
        "172.16.0.2",
        RESERVED,
    ),
    "14-bom-crlf.conf": ("a WireGuard profile", "162.159.192.1:2408", "172.16.0.2", None),
    "16-v6only.conf": ("a WireGuard profile", "[2606:4700:d0::a29f:c001]:2408", None, None),
    "18-reserved-forms.conf": ("a WireGuard profile", "162.159.192.1:2408", "172.16.0.2", RESERVED),
    "19-fscarmen-reserved.conf": ("a WireGuard profile", "162.159.192.1:2408", "172.16.0.2", RESERVED),
    "25-no-port.conf": ("a WireGuard profile", "162.159.192.1:2408", "172.16.0.2", None),
}
ASKED = {
    # Files with only a token: the API has the rest.
    "06-warpgo.conf": "a warp-go account",
    "11-warp-cli-reg.json": "the registration of Cloudflare's own client",
    "12-3xui.json": "3x-ui's WARP account",
    "22-wgcf.toml": "a wgcf account",
    "24-wgcf-indented.toml": "a wgcf account",
}
REFUSED = {"13-usque.json": "a usque configuration"}


def test_every_sample_is_named_here() -> None:
    assert {path.name for path in SAMPLES.iterdir()} == READ.keys() | ASKED.keys() | REFUSED.keys()


def connects(data: bytes, expected: tuple[str, str, str | None, bytes | None]) -> None:
    form, endpoint, v4, reserved = expected
    found = read_profile(data)
    assert (found.form, found.private_key, found.access) == (form, KEY, None)
    assert found.device
    account = parse_account(found.device, private_key=KEY, created=NOW, kind="imported")
    assert account.peer_public_key == PEER
    assert str(account.endpoints_to_try()[0]) == endpoint
    assert account.v4 == (v4 and ip_address(v4))
    assert account.client_id == reserved


@pytest.mark.parametrize("name", READ)
def test_a_file_with_a_usable_key_is_read(name: str) -> None:
    connects((SAMPLES / name).read_bytes(), READ[name])


@pytest.mark.parametrize("name", READ)
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_in_any_encoding_with_windows_line_ends(name: str, encoding: str) -> None:
    text = (SAMPLES / name).read_text(encoding="utf-8-sig").replace("\n", "\r\n")
    connects(text.encode(encoding), READ[name])


@pytest.mark.parametrize("name", [name for name in READ if name.endswith(".conf")])
def test_with_quotes_odd_blanks_and_a_fence(name: str) -> None:
    lines = (
        (SAMPLES / name).read_text(encoding="utf-8-sig").replace(f" = {KEY}", f' =\N{NO-BREAK SPACE}"{KEY}"')
    )
    connects(f"```ini\n  {lines}\n```\n".encode(), READ[name])


@pytest.mark.parametrize("name", ASKED)
def test_an_account_file_names_device_and_token(name: str) -> None:
    found = read_profile((SAMPLES / name).read_bytes())
    assert (found.form, found.private_key, found.device) == (ASKED[name], KEY, None)
    assert found.access and found.access.token == "99999999-8888-4777-8666-555555555555"


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_used_is_refused_by_its_name(name: str) -> None:
    with pytest.raises(InvalidError) as caught:
        read_profile((SAMPLES / name).read_bytes())
    assert str(caught.value).startswith(REFUSED[name])


WHOLE = {
    "Xray": json.dumps(
        {"outbounds": [{"protocol": "freedom"}, json.loads((SAMPLES / "09-xray.json").read_text())]}
    ),
    "sing-box": json.dumps({"endpoints": [json.loads((SAMPLES / "08-singbox.json").read_text())]}),
    "mihomo": "proxies:\n- name: other\n  type: ss\n" + (SAMPLES / "10-mihomo.yaml").read_text(),
    "wireproxy": (SAMPLES / "25-no-port.conf").read_text() + "\n[Socks5]\nBindAddress = 127.0.0.1:1080\n",
}


@pytest.mark.parametrize("which", WHOLE)
def test_a_whole_configuration_is_searched(which: str) -> None:
    found = read_profile(WHOLE[which].encode())
    assert found.private_key == KEY and found.device


def test_a_link() -> None:
    key, peer = KEY.replace("+", "%2B").replace("/", "%2F"), PEER.replace("+", "%2B")
    link = (
        f"wireguard://{key}@162.159.192.1:2408?publickey={peer}&address=172.16.0.2%2F32"
        "&reserved=193%2C29%2C7&mtu=1280#WARP"
    )
    connects(link.encode(), ("a wireguard:// link", "162.159.192.1:2408", "172.16.0.2", RESERVED))


NAMED = {
    "a Hiddify link": ("warp://auto#x", "a warp:// link without a private key"),
    "AmneziaWG": (f"[Interface]\nPrivateKey = {KEY}\nS1 = 15\n[Peer]\nEndpoint = 1.1.1.1:1\n", "AmneziaWG"),
    "wireproxy's pointer": ("WGConfig = /etc/wg.conf\n[Socks5]\n", "a wireproxy configuration"),
    "a PEM": ("-----BEGIN EC PRIVATE KEY-----\n", "a PEM key"),
    "Xray without a key": ('{"protocol": "wireguard", "settings": {"peers": [{}]}}', "an Xray outbound: "),
    "a proxy list": ("proxies:\n- name: x\n  type: ss\n", "no known form"),
}


@pytest.mark.parametrize("case", NAMED)
def test_a_refusal_is_one_line_that_names_the_form(case: str) -> None:
    text, words = NAMED[case]
    with pytest.raises(InvalidError) as caught:
        read_profile(text.encode())
    assert words in str(caught.value)
    assert str(caught.value).isprintable() and KEY not in str(caught.value)
