"""Methods, passwords and users, and the links that carry them."""

import json
from base64 import b64decode, b64encode
from ipaddress import ip_address
from urllib.parse import unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shadowsocks.credentials import (
    METHODS,
    Credentials,
    MethodKeys,
    RequestedUser,
    SavedKeys,
    User,
    credentials,
    generated_password,
    parse_users,
    password_problem,
)
from shadowsocks.links import Entry, entries, link, qr, qr_image
from tests.unit.shadowsocks.base64_forms import read_base64

AES, OLD = METHODS["2022-blake3-aes-128-gcm"], METHODS["chacha20-ietf-poly1305"]
KEY = b64encode(bytes(range(16))).decode()


@pytest.mark.parametrize("method", METHODS.values(), ids=str)
def test_a_generated_password_suits_its_method(method: object) -> None:
    one = METHODS[str(method)]
    passwords = {generated_password(one) for _ in range(20)}
    assert len(passwords) == 20
    assert all(password_problem(one, password) == "" for password in passwords)
    assert len(b64decode(passwords.pop())) == one.key


@pytest.mark.parametrize("length", [0, 15, 17, 32])
def test_a_key_has_one_length(length: int) -> None:
    assert f"{length} bytes" in password_problem(AES, b64encode(bytes(length)).decode())


def test_what_is_kept_stays() -> None:
    first, kept = credentials(AES, None, parse_users("alice,bob"), SavedKeys())
    again, unchanged = credentials(AES, None, parse_users("bob,alice"), SavedKeys.from_json(kept.to_json()))
    assert unchanged.texts == kept.texts
    assert again.password == first.password
    assert set(again.users) == set(first.users)
    assert len({first.password, *(user.key for user in first.users)}) == 3


def test_what_is_given_is_used_and_not_kept() -> None:
    found, kept = credentials(AES, KEY, [RequestedUser("alice", "given")], SavedKeys())
    assert found == Credentials(AES, KEY, (User("alice", "given"),))
    assert kept == SavedKeys()


@given(st.lists(st.sampled_from(sorted(METHODS)), min_size=1, max_size=8), st.booleans())
def test_each_method_has_one_password_and_key_for_good(names: list[str], older: bool) -> None:
    """Whatever the order of methods: NC 1, 128 to 256 bits and back gave new keys twice."""
    used: dict[str, Credentials] = {}
    _, kept = credentials(AES, None, [RequestedUser("alice")], SavedKeys())
    if older:
        kept = SavedKeys(kept.last, shown=True)
    for name in [AES.name, *names, *names]:
        found, now = credentials(METHODS[name], None, [RequestedUser("alice")], kept)
        assert used.setdefault(name, found) == found
        assert password_problem(found.method, found.password) == ""
        assert password_problem(found.method, found.users[0].key) == ""
        if now.texts != kept.texts:
            kept = SavedKeys.from_json(now.to_json())


def test_a_file_of_an_older_version_is_read_and_ours_by_an_older_one() -> None:
    old = b'{"version": 1, "password": "%s", "users": {"alice": "k"}}' % KEY.encode()
    saved = SavedKeys.from_json(old)
    assert (saved.last, saved.shown) == (MethodKeys(KEY, (("alice", "k"),)), True)
    found, _ = credentials(AES, None, [], saved)
    assert found.password == KEY
    content = json.loads(SavedKeys(MethodKeys(KEY), (("", MethodKeys(KEY)),)).to_json())
    assert (content["version"], content["password"], content["users"]) == (1, KEY, {})


def test_a_kept_key_waits_for_its_user() -> None:
    _, kept = credentials(AES, None, [RequestedUser("alice")], SavedKeys())
    _, without = credentials(AES, None, [], kept)
    assert without.texts == kept.texts


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff",
        b'{"version": 2, "password": null, "users": {}}',
        b'{"version": 1, "password": 5, "users": {}}',
        b'{"version": 1, "password": null, "users": []}',
        b'{"version": 1, "password": null, "users": {"a": 1}}',
        b'{"version": 1, "password": null}',
        b'{"version": 1, "password": null, "users": {}, "methods": {"aes-128-gcm": 5}}',
        b'{"version": 1, "password": null, "users": {}, "methods": []}',
    ],
)
def test_a_file_that_is_not_ours_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        SavedKeys.from_json(content)


def test_secrets_do_not_show_in_reprs() -> None:
    found, kept = credentials(AES, None, [RequestedUser("alice"), RequestedUser("bob", KEY)], SavedKeys())
    shown = repr((found, kept, RequestedUser("bob", KEY)))
    assert not any(secret in shown for secret in (found.password, KEY, *(user.key for user in found.users)))


def entry(name: str, method: str, password: str, host: str = "192.168.100.1") -> Entry:
    return Entry(name, host, 8888, METHODS[method], password)


def test_links_of_2022_are_percent_encoded() -> None:
    """The example of SIP002 for AEAD-2022, with its user information."""
    given = entry("Example3", "2022-blake3-aes-256-gcm", "YctPZ6U7xPPcU+gp3u+0tx/tRizJN9K8y+uKlW2qjlI=")
    assert link(given) == (
        "ss://2022-blake3-aes-256-gcm:YctPZ6U7xPPcU%2Bgp3u%2B0tx%2FtRizJN9K8y%2BuKlW2qjlI%3D"
        "@192.168.100.1:8888#Example3"
    )


def test_links_of_2017_are_base64() -> None:
    """The first example of SIP002."""
    given = entry("Example1", "aes-128-gcm", "test")
    assert link(given) == "ss://YWVzLTEyOC1nY206dGVzdA@192.168.100.1:8888#Example1"
    assert link(given, base64=True) == link(given)


def test_a_user_has_both_keys_and_their_name_in_the_link() -> None:
    (one,) = entries("vps.example", 8388, Credentials(AES, KEY, (User("älice", KEY),)))
    parts = urlsplit(link(one))
    assert parts.username == "2022-blake3-aes-128-gcm"
    assert unquote(parts.password or "") == f"{KEY}:{KEY}"
    assert unquote(parts.fragment) == "ss-warp-älice"


def test_ipv6_stands_in_brackets() -> None:
    (one,) = entries(ip_address("2001:db8::1"), 443, Credentials(AES, KEY))
    assert "@[2001:db8::1]:443#" in link(one)


@given(st.sampled_from(sorted(METHODS)), st.text(min_size=1, max_size=40), st.booleans())
def test_a_link_can_be_read_back(name: str, password: str, base64: bool) -> None:
    uri = link(entry("a", name, password, "vps.example"), base64=base64)
    parts = urlsplit(uri)
    assert (parts.hostname, parts.port) == ("vps.example", 8888)
    if METHODS[name].edition == 2022 and not base64:
        assert (parts.username, unquote(parts.password or "")) == (name, password)
    else:
        assert read_base64(uri) == (name, password)


QR_TEXT = link(entry("ss-warp", AES.name, KEY))


def test_a_qr_code_is_square_and_framed() -> None:
    rows = qr(QR_TEXT).splitlines()
    assert {len(row) for row in rows} == {len(rows) * 2 - 1}
    assert set("".join(rows)) <= set("█▀▄ ")
    assert rows[0] == "█" * len(rows[0]), "the quiet zone, light on a dark terminal"
    assert all(row[:2] == "██" == row[-2:] for row in rows[:-1])


def test_a_qr_code_as_an_image() -> None:
    assert qr_image(QR_TEXT, "png").startswith(b"\x89PNG\r\n")
    assert b"<svg" in qr_image(QR_TEXT, "svg")


def test_a_qr_code_shows_the_same_modules_as_the_library() -> None:
    import segno

    matrix = [list(row) for row in segno.make("ss://x", error="l", micro=False).matrix_iter(border=2)]
    light = {"█": (0, 0), "▀": (0, 1), "▄": (1, 0), " ": (1, 1)}
    drawn: list[list[int]] = []
    for row in qr("ss://x").splitlines():
        drawn += [[light[shape][0] for shape in row], [light[shape][1] for shape in row]]
    assert drawn[: len(matrix)] == matrix
