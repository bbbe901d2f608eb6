"""Endpoints: reading them, and the order of trying."""

from dataclasses import replace
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from entrypoint.addresses import Endpoint, NamedEndpoint, parse_endpoint, word_for
from tests.unit.account.devices import account


def at(address: str, port: int) -> Endpoint:
    return Endpoint(ip_address(address), port)


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        ("162.159.192.1", at("162.159.192.1", 2408)),
        ("162.159.192.1:500", at("162.159.192.1", 500)),
        ("[2606:4700:d0::1]:1701", at("2606:4700:d0::1", 1701)),
        ("[2606:4700:d0::1]", at("2606:4700:d0::1", 2408)),
        ("2606:4700:d0::1", at("2606:4700:d0::1", 2408)),
        ("10.0.0.1:65535", at("10.0.0.1", 65535)),
        ("Engage.cloudflareclient.com.:2408", NamedEndpoint("engage.cloudflareclient.com", 2408)),
        ("edge", NamedEndpoint("edge", 2408)),
        ("4500.example:4500", NamedEndpoint("4500.example", 4500)),
    ],
)
def test_forms(text: str, endpoint: Endpoint | NamedEndpoint) -> None:
    assert parse_endpoint(text) == endpoint


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            ":",
            ":2408",
            "host:",
            "host:0",
            "host:70000",
            "host:-1",
            "host:24x8",
            "host:2408:1",
            "host:２４０８",
        ),
        *("256.1.1.1", "1.2.3", "127.1", "01.2.3.4", "1.2.3.4.5:1", "[1.2.3.4]:1", "[::1", "::1]:1", "[]:1"),
        *(
            "fe80::1%eth0",
            "[fe80::1%eth0]:1",
            "2606:4700::d0:::1",
            "a b",
            "a;reboot",
            "$(id)",
            "-a.b",
            "a-.b",
        ),
        *("a..b", ".a", "a_b", "é.example", "x" * 64, ".".join(["x" * 63] * 5), "host\n", "1.2.3.4\n"),
    ],
)
def test_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"^[^\n]+$") as caught:
        parse_endpoint(text)
    assert len(text) < 5 or text not in str(caught.value)


def test_port_zero_means_what_the_reader_says() -> None:
    assert parse_endpoint("162.159.192.1:0", zero=2408) == at("162.159.192.1", 2408)
    with pytest.raises(ValueError, match=r"port 0 is not in 1\.\.65535"):
        parse_endpoint("162.159.192.1:0")


@given(st.ip_addresses(), st.integers(1, 65535))
def test_what_is_printed_is_read_back(address: object, port: int) -> None:
    endpoint = at(str(address), port)
    assert parse_endpoint(str(endpoint)) == endpoint


@given(st.text(max_size=60))
def test_anything_is_an_endpoint_or_a_value_error(text: str) -> None:
    try:
        endpoint = parse_endpoint(text)
    except ValueError:
        return
    assert parse_endpoint(str(endpoint)) == endpoint


def test_the_order_is_address_by_address_port_by_port_then_the_name() -> None:
    assert [str(candidate) for candidate in account().endpoints_to_try()] == [
        "162.159.192.6:2408",
        "[2606:4700:d0::a29f:c006]:2408",
        "162.159.192.6:500",
        "[2606:4700:d0::a29f:c006]:500",
        "162.159.192.6:1701",
        "[2606:4700:d0::a29f:c006]:1701",
        "162.159.192.6:4500",
        "[2606:4700:d0::a29f:c006]:4500",
        "engage.cloudflareclient.com:2408",
        "engage.cloudflareclient.com:500",
        "engage.cloudflareclient.com:1701",
        "engage.cloudflareclient.com:4500",
    ]


def test_only_families_of_the_uplinks() -> None:
    for family in (4, 6):
        for candidate in account().endpoints_to_try(families=[family]):
            assert isinstance(candidate, NamedEndpoint) or candidate.address.version == family


def test_a_port_the_api_gives_comes_first_and_its_list_replaces_ours() -> None:
    special = replace(account(), endpoints=(at("162.159.193.1", 891),), ports=(891, 2408), endpoint_name=None)
    assert special.endpoints_to_try() == (at("162.159.193.1", 891), at("162.159.193.1", 2408))


def test_the_users_endpoints_replace_the_apis_wherever_they_are() -> None:
    users = (NamedEndpoint("edge", 2408), at("10.0.0.1", 2408), at("127.0.0.1", 1), at("10.0.0.1", 2408))
    assert account().endpoints_to_try(users) == users[:3]
    assert account().endpoints_to_try(users, families=[6]) == users[:1]


@pytest.mark.parametrize(
    ("address", "word"),
    [
        *(("10.1.2.3", "private"), ("172.31.255.255", "private"), ("192.168.0.1", "private")),
        *(("100.64.0.1", "private"), ("fd00::1", "private"), ("fec0::1", "private")),
        *(("127.0.0.53", "loopback"), ("::1", "loopback"), ("0.0.0.0", "unspecified"), ("::", "unspecified")),
        *(("169.254.169.254", "link-local"), ("fe80::1", "link-local"), ("224.0.0.1", "multicast")),
        *(("ff02::1", "multicast"), ("240.0.0.1", "reserved"), ("255.255.255.255", "reserved")),
        *(("::ffff:10.0.0.1", "IPv4-mapped"), ("::a00:1", "IPv4-compatible")),
        *(("192.0.2.1", None), ("198.18.0.1", None), ("2001:db8::1", None), ("172.32.0.1", None)),
        *(("100.128.0.1", None), ("162.159.192.1", None), ("2606:4700:d0::1", None)),
    ],
)
def test_words_of_ranges(address: str, word: str | None) -> None:
    assert word_for(ip_address(address)) == word
