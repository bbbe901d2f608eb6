"""UAPI: what goes to the engine, and what its answers mean."""

import errno
from base64 import b64encode
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from entrypoint.addresses import Endpoint
from entrypoint.linux.kernel_objects import DeviceConfig, Stats
from entrypoint.wireguard.userspace import check_uapi, encode_uapi, parse_uapi


def config(**changes: object) -> DeviceConfig:
    values: dict[str, object] = {
        "name": "wg0",
        "private_key": b64encode(b"\x01" * 32).decode(),
        "peer_public_key": b64encode(b"\x02" * 32).decode(),
        "endpoint": Endpoint(ip_address("162.159.192.1"), 2408),
        "mark": 0x1000,
        "keepalive": 25,
    }
    return DeviceConfig(**(values | changes))  # type: ignore[arg-type]


def test_a_configuration_replaces_the_peers() -> None:
    assert encode_uapi(config()) == (
        "set=1\n"
        f"private_key={'01' * 32}\n"
        "fwmark=4096\n"
        "replace_peers=true\n"
        f"public_key={'02' * 32}\n"
        "endpoint=162.159.192.1:2408\n"
        "persistent_keepalive_interval=25\n"
        "replace_allowed_ips=true\n"
        "allowed_ip=0.0.0.0/0\n"
        "allowed_ip=::/0\n"
        "\n"
    )


def test_an_ipv6_endpoint_is_bracketed() -> None:
    text = encode_uapi(config(endpoint=Endpoint(ip_address("2606:4700:d0::a29f:c001"), 500)))
    assert "endpoint=[2606:4700:d0::a29f:c001]:500\n" in text


def test_allowed_ips_are_the_given_ones() -> None:
    text = encode_uapi(config(allowed_ips=(ip_network("10.0.0.0/8"),)))
    assert [line for line in text.splitlines() if "allowed_ip=" in line] == ["allowed_ip=10.0.0.0/8"]


@pytest.mark.parametrize("key", ["not base64!", "AAA"])
def test_a_broken_key_never_reaches_the_socket(key: str) -> None:
    with pytest.raises(ValueError):
        encode_uapi(config(private_key=key))


@given(st.integers(0, 2**40), st.integers(0, 999_999_999), st.integers(0, 2**60), st.integers(0, 2**60))
def test_counters_are_read_from_a_listing(seconds: int, nanoseconds: int, rx: int, tx: int) -> None:
    answer = (
        f"private_key={'01' * 32}\nlisten_port=51820\nfwmark=4096\npublic_key={'02' * 32}\n"
        f"preshared_key={'00' * 32}\nprotocol_version=1\nendpoint=162.159.192.1:2408\n"
        f"last_handshake_time_sec={seconds}\nlast_handshake_time_nsec={nanoseconds}\n"
        f"tx_bytes={tx}\nrx_bytes={rx}\npersistent_keepalive_interval=25\n"
        "allowed_ip=0.0.0.0/0\nallowed_ip=::/0\nerrno=0\n\n"
    )
    assert parse_uapi(answer) == Stats(seconds + nanoseconds / 1e9, rx, tx)


def test_a_device_without_a_peer_has_no_counters() -> None:
    assert parse_uapi("listen_port=51820\nerrno=0\n\n") == Stats(0, 0, 0)


@pytest.mark.parametrize("number", [-22, 22])
def test_a_refusal_is_an_oserror_with_its_number(number: int) -> None:
    with pytest.raises(OSError, match="rejected") as caught:
        check_uapi(f"errno={number}\n\n")
    assert caught.value.errno == errno.EINVAL


@pytest.mark.parametrize("read", [check_uapi, parse_uapi])
@pytest.mark.parametrize("answer", ["", "rx_bytes=5\n"])
def test_an_answer_cut_off_is_an_oserror(read, answer: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ConnectionAbortedError):
        read(answer)


def test_success_says_nothing() -> None:
    check_uapi("errno=0\n\n")
