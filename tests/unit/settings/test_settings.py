import re
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
    ("SHADOWSOCKS_PORT", "tcp://10.0.0.1:8388", "is not a number"),
    ("SHADOWSOCKS_PORT", "٨٣٨٨", "is not a number"),
    ("SHADOWSOCKS_METHOD", "aes-256-cfb", "stream ciphers"),
    ("SHADOWSOCKS_METHOD", "rc4-md5", "stream ciphers"),
    ("SHADOWSOCKS_METHOD", "chacha20", "stream ciphers"),
    ("SHADOWSOCKS_METHOD", "none", "without encryption"),
    ("SHADOWSOCKS_METHOD", "plain", "without encryption"),
    ("SHADOWSOCKS_METHOD", "aes-256-gmc", "did you mean aes-256-gcm"),
    ("SHADOWSOCKS_ALLOWED_CIDRS", "10.0.0.1/8", "host bits set; did you mean 10.0.0.0/8"),
    ("SHADOWSOCKS_ALLOWED_CIDRS", "300.1.1.1", "is not a network"),
    ("SHADOWSOCKS_PUBLIC_HOST", "a b", "neither a host name nor an IP address"),
    ("SHADOWSOCKS_PUBLIC_HOST", "300.1.1.1", "is not an IP address"),
    ("SHADOWSOCKS_UDP", "maybe", "neither on nor off"),
    ("WARP_ENDPOINTS", "engage.example/path", "not a host name"),
    ("WARP_ENDPOINTS", "[::1", "expected host"),
    ("WARP_ENDPOINTS", "1.2.3.4:0", "port 0"),
    ("WARP_ENDPOINTS", "1.2.3.4:2408,,", "not a host name"),
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
    ("DNS_ADDRESSES", ",", "is not an IP address"),
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
    ("HEALTH_SERVER_ADDRESS", "localhost:9999", "not an address with a port"),
    ("HEALTH_SERVER_ADDRESS", "127.0.0.1", "not an address with a port"),
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
