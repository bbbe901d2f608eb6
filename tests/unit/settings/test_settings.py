import re
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from entrypoint.addresses import Endpoint, NamedEndpoint, Ports
from entrypoint.errors import SettingsError
from entrypoint.settings import VARIABLES, describe, load, reference_table

LINE = re.compile(r"[A-Z][A-Z0-9_]+: .+")


def problems(**environ: str) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        load(environ)
    assert caught.value.exit_code == 78
    return caught.value.problems


def test_everything_has_a_default() -> None:
    found = load({})
    assert found.account.state_dir == Path("/var/lib/ss-warp")
    assert found.tunnel.mtu == 1280
    assert found.tunnel.keepalive == 25
    assert (found.tunnel.families, found.tunnel.direct) == ((4, 6), None)
    assert found.tunnel.endpoints == ()
    assert found.routing.mode is None
    assert found.firewall.on
    assert [address.version for address in found.dns.addresses] == [4, 4, 6, 6]
    assert found.shadowsocks.method.name == "2022-blake3-aes-128-gcm"
    assert found.shadowsocks.password is None
    assert found.health.server_address == Endpoint(ip_address("127.0.0.1"), 9999)
    assert found.logs.print_link
    assert found.warnings == ()


@pytest.mark.parametrize("name", VARIABLES)
def test_unset_and_empty_are_the_same(name: str) -> None:
    assert load({name: ""}) == load({})


@pytest.mark.parametrize(
    "name",
    [
        name
        for name, variable in VARIABLES.items()
        if "/run/secrets" not in variable.example and not variable.secret
    ],
)
def test_examples_are_accepted(name: str) -> None:
    needed = dict.fromkeys(("WARP_ORG", "WARP_AUTH_CLIENT_ID", "WARP_AUTH_CLIENT_SECRET"), "")
    if name in needed:  # none of them works alone
        needed = {other: VARIABLES[other].example for other in needed}
    assert load({**needed, name: VARIABLES[name].example}).texts[name] == VARIABLES[name].example


def test_values_are_typed() -> None:
    found = load(
        {
            "FIREWALL": "Off",
            "FIREWALL_INPUT_PORTS": "53, 5000-5010/udp,22/TCP",
            "FIREWALL_OUTBOUND_SUBNETS": "10.0.0.0/8,fd00::/8",
            "WARP_ENDPOINTS": "162.159.192.1:500,[2606:4700:d0::1]:1701,engage.example",
            "HEALTH_INTERVAL": "2m",
            "WIREGUARD_PERSISTENT_KEEPALIVE_INTERVAL": "0",
            "WIREGUARD_MTU": "Auto",
            "WARP_IP_VERSION": "4",
            "DIRECT_IP_VERSION": "6",
            "WARP_API_URL": "https://mirror.example:8443/warp/",
            "SHADOWSOCKS_USERS": "alice,bob:AAAAAAAAAAAAAAAAAAAAAA==",
            "SHADOWSOCKS_PUBLIC_HOST": "2001:db8::1",
        }
    )
    assert not found.firewall.on
    assert found.firewall.input_ports == (
        Ports(53, 53, "tcp"),
        Ports(53, 53, "udp"),
        Ports(5000, 5010, "udp"),
        Ports(22, 22, "tcp"),
    )
    assert found.firewall.outbound_subnets == (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))
    assert found.tunnel.endpoints == (
        Endpoint(ip_address("162.159.192.1"), 500),
        Endpoint(ip_address("2606:4700:d0::1"), 1701),
        NamedEndpoint("engage.example", 2408),
    )
    assert (found.health.interval, found.tunnel.keepalive, found.tunnel.mtu) == (120, 0, "auto")
    assert (found.tunnel.families, found.tunnel.direct) == ((4,), 6)
    assert found.account.api_url == "https://mirror.example:8443/warp"
    assert [(user.name, user.key) for user in found.shadowsocks.users] == [
        ("alice", None),
        ("bob", "AAAAAAAAAAAAAAAAAAAAAA=="),
    ]
    assert found.shadowsocks.public_host == ip_address("2001:db8::1")


BAD = [
    ("SHADOWSOCKS_PORT", "0", "out of range"),
    ("SHADOWSOCKS_PORT", "70000", "70000 is out of range"),
    ("SHADOWSOCKS_PORT", "8388x", "'8388x' is not a number"),
    ("SHADOWSOCKS_PORT", "٨٣٨٨", "is not a number"),
    ("SHADOWSOCKS_METHOD", "aes-256-cfb", "stream ciphers"),
    ("SHADOWSOCKS_METHOD", "rc4-md5", "stream ciphers"),
    ("SHADOWSOCKS_METHOD", "chacha20", "stream ciphers"),
    ("SHADOWSOCKS_METHOD", "none", "without encryption"),
    ("SHADOWSOCKS_METHOD", "plain", "without encryption"),
    ("SHADOWSOCKS_METHOD", "aes-256-gmc", "did you mean aes-256-gcm"),
    ("SHADOWSOCKS_ALLOWED_CIDRS", "10.0.0.1/8", "host bits set; did you mean 10.0.0.0/8"),
    ("SHADOWSOCKS_ALLOWED_CIDRS", "300.1.1.1", "is not a network"),
    ("SHADOWSOCKS_PUBLIC_HOST", "vps.example.net:443", "SHADOWSOCKS_PUBLIC_PORT"),
    ("SHADOWSOCKS_PUBLIC_HOST", "[2001:db8::1", "is not an IP address"),
    ("SHADOWSOCKS_PUBLIC_HOST", "a b", "neither a host name nor an IP address"),
    ("SHADOWSOCKS_PUBLIC_HOST", "300.1.1.1", "is not an IP address"),
    ("SHADOWSOCKS_UDP", "maybe", "neither on nor off"),
    ("WARP_ENDPOINTS", "engage.example/path", "not a host name"),
    ("WARP_ENDPOINTS", "[::1", "expected host"),
    ("WARP_ENDPOINTS", "1.2.3.4:0", "port 0"),
    ("WIREGUARD_MTU", "100", "100 is out of range"),
    ("WIREGUARD_MTU", "9000", "9000 is out of range"),
    ("WIREGUARD_MTU", "abc", "'abc' is not a number"),
    ("WIREGUARD_MTU", "1200", "expected 1280 to 1500"),
    ("WARP_IP_VERSION", "ipv4", "expected dual, 4 or 6"),
    ("DIRECT_IP_VERSION", "5", "expected none, 4 or 6"),
    ("WIREGUARD_PERSISTENT_KEEPALIVE_INTERVAL", "-1", "not a duration"),
    ("WIREGUARD_PERSISTENT_KEEPALIVE_INTERVAL", "70000", "70000 s is out of range"),
    ("WIREGUARD_PERSISTENT_KEEPALIVE_INTERVAL", "25x", "not a duration"),
    ("WIREGUARD_INTERFACE", "a-name-that-is-too-long", "interface name"),
    ("WIREGUARD_INTERFACE", 'wg0" accept', "interface name"),
    ("WIREGUARD_INTERFACE", "lo", "interface name"),
    ("WIREGUARD_IMPLEMENTATION", "kernal", "did you mean kernel"),
    ("FIREWALL", "maybe", "expected on or off"),
    ("FIREWALL_OUTBOUND_SUBNETS", "0.0.0.0/0", "kill switch"),
    ("FIREWALL_OUTBOUND_SUBNETS", "128.0.0.0/1", "kill switch"),
    ("FIREWALL_OUTBOUND_SUBNETS", "::/0", "kill switch"),
    ("FIREWALL_INPUT_PORTS", "90-80", "reversed"),
    ("FIREWALL_INPUT_PORTS", "80/sctp", "is not a port"),
    ("ROUTE_RULE_PRIORITY", "0", "out of range"),
    ("ROUTE_RULE_PRIORITY", "32766", "out of range"),
    ("ROUTE_TABLE", "254", "254 is reserved"),
    ("ROUTE_MODE", "fulll", "did you mean full"),
    ("NETWORK", "bridge", "unknown"),
    ("DNS_ADDRESSES", "localhost", "'localhost' is not an IP address"),
    ("DNS_ADDRESSES", "127.0.0.11", "cannot be reached through the tunnel"),
    ("DNS_ADDRESSES", "1.1.1.1,::1", "cannot be reached through the tunnel"),
    ("DNS_ADDRESSES", ",", "empty list"),
    ("DNS_ADDRESSES", "192.168.1.1", "private"),
    ("WARP_RESERVED", "1,2", "three bytes"),
    ("WARP_JUNK", "4", "a count up to 255, a shortest and a longest"),
    ("WARP_JUNK", "4,70,40", "a shortest and a longest"),
    ("WARP_JUNK", "256,40,70", "a count up to 255"),
    ("WARP_JUNK", "4,40,1201", "out of range"),
    ("WARP_JUNK", "0,40,70", "out of range"),
    ("WARP_RESERVED", "1,2,300", "out of range"),
    ("WARP_RESERVED", "wR0HAA==", "not a number"),
    ("DNS_ADDRESSES", "fe80::1%eth0", "has a zone"),
    ("WARP_STATE_DIR", "state", "not an absolute path"),
    ("WARP_ORG", "acme corp", "organisation"),
    ("WARP_TEAM_TOKEN", "https://acme.cloudflareaccess.com/warp", "no token"),
    ("WARP_IMPORT_FILE", "wgcf-account.toml", "not an absolute path"),
    ("WARP_UNREGISTER_ON_EXIT", "sometimes", "neither on nor off"),
    ("WARP_API_URL", "http://api.example", "URL"),
    ("WARP_API_URL", "https://user:word@api.example", "URL"),
    ("WARP_API_URL", "https://", "URL"),
    ("WARP_API_CA_FILE", "/nowhere/ca.pem", "not found"),
    ("HEALTH_INTERVAL", "0s", "out of range"),
    ("HEALTH_SERVER_ADDRESS", "vps.example:9999", "not an address with a port"),
    ("HEALTH_SERVER_ADDRESS", "127.0.0.1", "port"),
    ("HEALTH_TRACE_URLS", "1.1.1.1/cdn-cgi/trace", "URL"),
    ("LOG_FORMAT", "xml", "expected text or json"),
    ("LOG_LEVEL", "loud", "unknown"),
    ("WARP_DEVICE_NAME", "a\nb", "not a short printable name"),
    ("WARP_DEVICE_NAME", "x" * 1_048_576, "not a short printable name"),
    ("WARP_STATE_DIR", "/\udcff", "not an absolute path"),
]


@pytest.mark.parametrize(
    ("name", "text", "wrong"), BAD, ids=[f"{name}={text[:20]!r}" for name, text, _ in BAD]
)
def test_bad_values_are_named_with_an_example(name: str, text: str, wrong: str) -> None:
    (line,) = problems(**{name: text})
    assert line.startswith(f"{name}: ")
    assert wrong in line
    assert "; expected " in line
    assert ", e.g. " in line
    assert line.isprintable()
    assert len(line) < 400


FORMS = [
    ("WARP_RESERVED", ["193,29,7", "[193, 29, 7]", "193 29 7", "wR0H", "c11d07", "0xC11D07"]),
    ("WARP_JUNK", ["4,40,70", " 4, 40, 70 ", "4 40 70"]),
    ("SHADOWSOCKS_PUBLIC_HOST", ["2001:db8::1", "[2001:db8::1]"]),
    ("DNS_ADDRESSES", ["9.9.9.9,2620:fe::fe", " 9.9.9.9\n2620:fe::fe\n", "9.9.9.9 2620:fe::fe,"]),
    ("WARP_ENDPOINTS", ["1.2.3.4:500,[2001:db8::1]:500", "1.2.3.4:500 [2001:db8::1]:500,,"]),
    ("FIREWALL_INPUT_PORTS", ["8000-8010/tcp", "8000:8010/TCP", "8000-8010/tcp,"]),
    ("FIREWALL", ["off", '"off"', "'Off'", " off\r"]),
    ("HEALTH_INTERVAL", ["90s", "1m30s", "1.5m", "90"]),
    ("HEALTH_SERVER_ADDRESS", ["0.0.0.0:9999", ":9999", "*:9999"]),
    ("SHADOWSOCKS_METHOD", ["aes-256-gcm", "AES-256-GCM", "AEAD_AES_256_GCM", '"aes-256-gcm"']),
    ("SHADOWSOCKS_METHOD", ["chacha20-ietf-poly1305", "AEAD_CHACHA20_POLY1305", "chacha20-poly1305"]),
    ("LOG_LEVEL", ["warning", "warn", "WARN"]),
    ("WIREGUARD_IMPLEMENTATION", ["kernel", "kernelspace"]),
    ("SHADOWSOCKS_USERS", ["alice,bob", "alice\nbob\n", "alice, bob,", '"alice,bob"']),
    (
        "WARP_TEAM_TOKEN",
        ["eyJ0.eyJl.c2ln", '"eyJ0.eyJl.c2ln"', "Bearer eyJ0.eyJl.c2ln", "eyJ0.eyJl.c2ln\r\n"],
    ),
]


@pytest.mark.parametrize(("name", "texts"), FORMS, ids=[f"{name}-{texts[0]}" for name, texts in FORMS])
def test_one_value_in_every_form_that_people_paste(name: str, texts: list[str]) -> None:
    found = [replace(load({name: text}), texts={}) for text in texts]
    assert all(one == found[0] != load({}) for one in found)


def test_a_service_token_as_the_dashboard_shows_it() -> None:
    plain = {
        "WARP_ORG": "acme",
        "WARP_AUTH_CLIENT_ID": "0123abcd.access",
        "WARP_AUTH_CLIENT_SECRET": "01234567",
    }
    pasted = {
        "WARP_ORG": "https://acme/",
        "WARP_AUTH_CLIENT_ID": "CF-Access-Client-Id: 0123abcd.access",
        "WARP_AUTH_CLIENT_SECRET": "CF-Access-Client-Secret: 01234567",
    }
    assert load(pasted).account == load(plain).account


def test_a_password_keeps_its_quotation_marks_and_loses_a_line_end() -> None:
    old = {"SHADOWSOCKS_METHOD": "aes-128-gcm"}
    password = load({**old, "SHADOWSOCKS_PASSWORD": '"sixteen characters"\r\n'}).shadowsocks.password
    assert password and password.reveal() == '"sixteen characters"'
    (line,) = problems(SHADOWSOCKS_PASSWORD='"AAECAwQFBgcICQoLDA0ODw=="')
    assert "quotation marks" in line


@pytest.mark.parametrize("name", ["alice:K1,K2==", "al ice", "a/b", "a=b", "x" * 65])
def test_a_users_name_is_a_word(name: str) -> None:
    (line,) = problems(SHADOWSOCKS_USERS=name)
    assert "K2" not in line


def test_credentials_in_a_url_do_not_show() -> None:
    (line,) = problems(WARP_API_URL="https://user:hunter2@api.example")
    assert "hunter2" not in line


def test_an_alias_is_taken_with_a_warning() -> None:
    found = load({"SHADOWSOCKS_CIPHER": "aes-128-gcm"})
    assert found.shadowsocks.method.name == "aes-128-gcm"
    assert found.warnings == ("SHADOWSOCKS_CIPHER is an alias: use SHADOWSOCKS_METHOD instead",)


def test_secrets_do_not_show() -> None:
    key = "q83vASNFZ4mrze8BI0Vniw=="
    found = load({"SHADOWSOCKS_PASSWORD": key, "SHADOWSOCKS_USERS": "alice:eXl5eXl5eXl5eXl5eXl5eQ=="})
    assert found.shadowsocks.password
    assert found.shadowsocks.password.reveal() == key
    for text in (repr(found), str(found), "\n".join(describe(found)), str(found.texts)):
        assert key not in text
        assert "eXl5" not in text
    assert "  SHADOWSOCKS_PASSWORD: (hidden)" in describe(found)
    assert "  SHADOWSOCKS_PASSWORD: (generated once, then saved)" in describe(load({}))


def test_resolved_shows_every_variable() -> None:
    shown = "\n".join(describe(load({"WIREGUARD_MTU": "1400"})))
    assert "WIREGUARD_MTU: 1400" in shown
    assert all(f"  {name}: " in shown for name in VARIABLES)


def test_the_table_has_a_row_for_every_variable() -> None:
    rows = [line for line in reference_table().splitlines() if line.startswith("| `")]
    assert [row.split("`")[1] for row in rows] == list(VARIABLES)
    assert all(row.count(" | ") == 3 for row in rows)


TEXTS = st.text(max_size=30) | st.sampled_from(
    ["on", "10.0.0.0/8", "1-2/udp", "[::1]:1", "25s", "a:b,c", "::", "1%1"]
)


@settings(max_examples=150)
@given(st.dictionaries(st.sampled_from([*VARIABLES, "FIREWAL"]), TEXTS, max_size=6))
def test_anything_else_ends_in_lines_for_people(environ: dict[str, str]) -> None:
    try:
        load(environ)
    except SettingsError as error:
        assert error.problems
        for line in error.problems:
            assert LINE.fullmatch(line)
