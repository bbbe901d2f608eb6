"""Accounts: read from hostile answers, kept and read back."""

import base64
import json
from ipaddress import ip_address, ip_interface

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nacl.public import PrivateKey

from entrypoint.account.model import Access, Account, from_json, new_private_key, public_key, to_json
from entrypoint.addresses import Endpoint, NamedEndpoint
from entrypoint.strict_json import InvalidError, JsonValue, parse_json
from tests.fakes.accidents import places
from tests.fakes.warp_api import EDGE_KEY, device_object
from tests.unit.account.devices import NOW, PRIVATE_KEY, account, read


def test_a_usual_answer() -> None:
    device = device_object(public_key(PRIVATE_KEY))
    assert read(device) == Account(
        kind="free",
        access=Access(device["id"], device["token"]),
        private_key=PRIVATE_KEY,
        license_key="Ab12Cd34-Ef56Gh78-Ij90Kl12",
        peer_public_key=EDGE_KEY,
        endpoints=(
            Endpoint(ip_address("162.159.192.6"), 2408),
            Endpoint(ip_address("2606:4700:d0::a29f:c006"), 2408),
        ),
        endpoint_name=NamedEndpoint("engage.cloudflareclient.com", 2408),
        ports=(),
        v4=ip_address("172.16.0.2"),  # type: ignore[arg-type]
        v6=ip_address("2606:4700:110:8abc:1234:5678:9abc:def0"),  # type: ignore[arg-type]
        client_id=b"\x01\x02\x03",
        created=NOW,
    )
    assert read(device).addresses == (
        ip_interface("172.16.0.2/32"),
        ip_interface("2606:4700:110:8abc:1234:5678:9abc:def0/128"),
    )


def test_secrets_are_not_in_the_repr() -> None:
    device = device_object(public_key(PRIVATE_KEY))
    shown = repr(read(device))
    assert not any(secret in shown for secret in (PRIVATE_KEY, str(device["token"]), "Ab12Cd34"))


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.ip_addresses().map(str),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=300)
@given(st.data())
def test_a_changed_answer_is_an_account_or_an_error_on_one_line(data: st.DataObject) -> None:
    device = device_object(public_key(PRIVATE_KEY))
    for _ in range(data.draw(st.integers(1, 3))):
        found = places(device)
        container, key = found[data.draw(st.integers(0, len(found) - 1))]
        container[key] = data.draw(JSON)
    try:
        result = read(device)
    except InvalidError as error:
        assert len(str(error)) < 200
        assert str(error).isprintable()
        token = device.get("token")
        assert not (isinstance(token, str) and token and token in str(error))
        return
    assert from_json(parse_json(json.dumps(to_json(result)).encode())) == result


def test_what_is_kept_is_read_back() -> None:
    kept = json.loads(json.dumps(to_json(account())))
    again = from_json(JsonValue(kept))
    assert again.private_key == PRIVATE_KEY
    assert to_json(again) == kept
    assert again == from_json(JsonValue(to_json(again)))


@pytest.mark.parametrize(
    ("member", "value", "words"),
    [
        ("kind", "gold", "kind: expected one of free, plus, team, imported"),
        ("private_key", "AQID", "private_key: expected the base64 of 32 bytes"),
        ("private_key", None, "private_key: missing"),
        ("created", "yesterday", "created: expected a time"),
        ("created", "2026-01-02T03:04:05", "created: expected a time with its offset"),
        ("device", 1, "device: expected an object"),
    ],
)
def test_a_changed_file_is_refused(member: str, value: object, words: str) -> None:
    with pytest.raises(InvalidError) as caught:
        from_json(JsonValue({**to_json(account()), member: value}))
    assert str(caught.value) == words


@pytest.mark.parametrize(
    ("data", "words"),
    [
        *((b"", "not JSON"), (b"{", "not JSON"), (b'{"a": NaN}', "not JSON"), (b"\xff\xfe", "not JSON")),
        *((b"[" * 100_000, "not JSON"), (b"9" * 5_000, "not JSON"), (b"{} {}", "not JSON")),
        (b'{"a": 1, "a": 2}', "a member occurs twice"),
    ],
)
def test_what_is_no_json(data: bytes, words: str) -> None:
    with pytest.raises(InvalidError) as caught:
        parse_json(data)
    assert str(caught.value) == words


def test_keys_are_x25519_and_clamped_as_wireguard_does() -> None:
    raw = base64.b64decode(PRIVATE_KEY)
    assert (raw[0] & 7, raw[31] & 0xC0, len(raw)) == (0, 0x40, 32)
    assert base64.b64decode(public_key(PRIVATE_KEY)) == bytes(PrivateKey(raw).public_key)
    assert new_private_key() != new_private_key()
