import re

import pytest

from entrypoint.errors import SettingsError
from entrypoint.settings import load


def problems(**environ: str) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        load(environ)
    return caught.value.problems


TOGETHER = [
    ({"SHADOWSOCKS_PASSWORD": "correct horse"}, "not base64"),
    ({"SHADOWSOCKS_PASSWORD": "QUJDREVGR0hJSktMTU5PUFFSU1RVVldY"}, "24 bytes"),
    ({"SHADOWSOCKS_PASSWORD": "AAAAAAAAAAAAAAAAAAAAAB=="}, "not canonical base64"),
    ({"SHADOWSOCKS_PASSWORD": "AAAAAAAAAAAAAAAAAAAAAA"}, "not base64"),
    ({"SHADOWSOCKS_METHOD": "aes-256-gcm", "SHADOWSOCKS_PASSWORD": "kitty"}, "too short: 5 characters"),
    (
        {"SHADOWSOCKS_METHOD": "aes-256-gcm", "SHADOWSOCKS_PASSWORD": "kitty\nkitty\nkitty"},
        "control characters",
    ),
    ({"SHADOWSOCKS_METHOD": "aes-256-gcm", "SHADOWSOCKS_USERS": "a,b"}, "AES"),
    ({"SHADOWSOCKS_METHOD": "2022-blake3-chacha20-poly1305", "SHADOWSOCKS_USERS": "a"}, "AES"),
    ({"SHADOWSOCKS_USERS": "a:QUJD"}, "3 bytes"),
    ({"SHADOWSOCKS_USERS": "a,a"}, "same name"),
    ({"SHADOWSOCKS_USERS": "a:AAAAAAAAAAAAAAAAAAAAAA==,b:AAAAAAAAAAAAAAAAAAAAAA=="}, "same key"),
    ({"SHADOWSOCKS_USERS": "a:"}, "a colon but no key"),
    ({"WARP_ORG": "acme"}, "WARP_AUTH_CLIENT_ID: missing: a service token needs all of"),
    ({"WARP_TEAM_TOKEN": "eyJ0.eyJl.c2ln", "WARP_IMPORT_FILE": "/a"}, "more than one source"),
    ({"WARP_TEAM_TOKEN": "eyJ0.eyJl.c2ln", "WARP_LICENSE_KEY": "12345678"}, "licence"),
    ({"HEALTH_SERVER_ADDRESS": "127.0.0.1:8388"}, "SHADOWSOCKS_PORT"),
    ({"WARP_IP_VERSION": "4", "DIRECT_IP_VERSION": "4"}, "IPv4"),
    ({"WARP_IP_VERSION": "6", "DIRECT_IP_VERSION": "6"}, "expected none, or WARP_IP_VERSION=4"),
    ({"DIRECT_IP_VERSION": "6"}, "expected none, or WARP_IP_VERSION=4"),
    ({"WARP_IP_VERSION": "6", "DNS_ADDRESSES": "9.9.9.9"}, "no IPv6"),
    ({"WIREGUARD_IMPLEMENTATION": "kernel", "WARP_JUNK": "4,40,70"}, "kernel WireGuard sends no junk"),
]


@pytest.mark.parametrize(("environ", "wrong"), TOGETHER)
def test_bad_combinations(environ: dict[str, str], wrong: str) -> None:
    (line,) = problems(**environ)
    assert re.fullmatch(r"[A-Z_]+: .+", line)
    assert wrong in line
    secret = environ.get("SHADOWSOCKS_PASSWORD") or environ.get("SHADOWSOCKS_USERS", "")
    assert not any(len(part) > 1 and part in line for part in re.split("[,:\n]", secret))


def test_all_problems_are_told_at_once() -> None:
    lines = problems(
        FIREWALL="maybe",
        SHADOWSOCKS_PORT="0",
        SHADOWSOCKS_PASSWORD="hunter2",
        WARP_TEAM_TOKEN="eyJhbGciOi",
        FIREWAL_INPUT_PORTS="1",
        HEALTH_SERVER_ADDRESS="127.0.0.1:8388",
    )
    assert {line.partition(":")[0] for line in lines} == {
        "FIREWALL",
        "SHADOWSOCKS_PORT",
        "SHADOWSOCKS_PASSWORD",
        "WARP_TEAM_TOKEN",
        "FIREWAL_INPUT_PORTS",
    }, "a check of two variables waits until both can be read"


def test_a_password_is_not_judged_by_a_method_that_cannot_be_read() -> None:
    (line,) = problems(SHADOWSOCKS_METHOD="aes", SHADOWSOCKS_PASSWORD="long enough for 2017")
    assert line.startswith("SHADOWSOCKS_METHOD")


@pytest.mark.parametrize(
    ("environ", "part"),
    [
        ({"WARP_IP_VERSION": "4", "DIRECT_IP_VERSION": "6"}, "IPv6 bypasses the tunnel"),
        ({"NETWORK": "own", "HEALTH_SERVER_ADDRESS": ":9999"}, "FIREWALL_INPUT_PORTS"),
        (
            {"NETWORK": "own", "HEALTH_SERVER_ADDRESS": ":9999", "FIREWALL_INPUT_PORTS": "9000-9999/udp"},
            "FIREWALL_INPUT_PORTS",
        ),
    ],
)
def test_valid_settings_that_surprise_are_warned_of(environ: dict[str, str], part: str) -> None:
    (warning,) = load(environ).warnings
    assert part in warning


def test_an_opened_address_needs_no_warning() -> None:
    opened = {"NETWORK": "own", "HEALTH_SERVER_ADDRESS": ":9999", "FIREWALL_INPUT_PORTS": "9000-9999/tcp"}
    assert not load(opened).warnings
    assert not load({"NETWORK": "host", "HEALTH_SERVER_ADDRESS": ":9999"}).warnings
