import json
import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from shadowsocks.credentials import METHODS, Credentials, RequestedUser, SavedKeys, credentials
from shadowsocks.server import ARGV, Inbound, Listening, acl, parse_listening, server_config, summarize_line

LOCAL = ip_address("127.0.0.1")
DNS = (ip_address("1.1.1.1"), ip_address("2606:4700:4700::1111"))
ALONE, _ = credentials(METHODS["2022-blake3-aes-128-gcm"], None, (), SavedKeys())
SEVERAL, _ = credentials(
    METHODS["2022-blake3-aes-256-gcm"], None, [RequestedUser("alice"), RequestedUser("bob")], SavedKeys()
)


def test_every_address_has_its_own_server() -> None:
    inbound = Inbound((LOCAL, ip_address("2001:db8::1")), 8388, SEVERAL)
    config = json.loads(server_config(inbound, device="wg0", dns=DNS))
    assert [server["server"] for server in config["servers"]] == ["127.0.0.1", "2001:db8::1"]
    for server in config["servers"]:
        assert server["server_port"] == 8388
        assert [user["name"] for user in server["users"]] == ["alice", "bob"]
        assert server["password"] == SEVERAL.password
    assert config["outbound_bind_interface"] == "wg0"
    assert config["outbound_udp_allow_fragmentation"] is True
    assert config["inbound_udp_allow_fragmentation"] is True
    assert config["dns"] == "1.1.1.1,2606:4700:4700::1111"
    assert config["mode"] == "tcp_and_udp"
    assert config["udp_timeout"] >= 60, "SIP022"
    assert "outbound_bind_interface" not in json.loads(server_config(inbound, device=None, dns=DNS))


def test_without_udp_there_is_only_tcp() -> None:
    config = json.loads(server_config(Inbound((LOCAL,), 1, ALONE, udp=False), device="wg0", dns=DNS))
    assert config["mode"] == "tcp_only"
    assert "users" not in config["servers"][0]


@pytest.mark.parametrize("wildcard", ["0.0.0.0", "::"])
def test_never_on_a_wildcard_address(wildcard: str) -> None:
    with pytest.raises(ValueError, match="concrete"):
        server_config(Inbound((LOCAL, ip_address(wildcard)), 8388, ALONE), device="wg0", dns=DNS)


def test_never_with_a_default_of_its_own() -> None:
    with pytest.raises(ValueError, match="concrete"):
        server_config(Inbound((), 8388, ALONE), device="wg0", dns=DNS)
    with pytest.raises(ValueError, match="concrete"):
        server_config(Inbound((LOCAL,), 8388, ALONE), device="wg0", dns=())


@pytest.mark.parametrize(
    "address",
    [
        *(
            "127.0.0.1",
            "127.0.0.11",
            "10.1.2.3",
            "172.16.0.2",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
        ),
        *("0.0.0.0", "224.0.0.1", "255.255.255.255", "::1", "::", "fe80::1", "fd00::1", "ff02::1"),
        *("64:ff9b::7f00:1", "2002:7f00:1::", "2001:0:1::1"),
    ],
)
def test_no_client_is_taken_to_special_addresses(address: str) -> None:
    blocked = acl().decode().partition("[outbound_block_list]\n")[2].split()
    networks = [ip_network(line) for line in blocked if not line.startswith("||")]
    assert any(
        ip_address(address) in network
        for network in networks
        if network.version == ip_address(address).version
    )


@pytest.mark.parametrize(
    "address", ["1.1.1.1", "8.8.8.8", "2606:4700:4700::1111", "172.32.0.1", "192.169.0.1"]
)
def test_public_addresses_are_not_blocked(address: str) -> None:
    blocked = acl().decode().partition("[outbound_block_list]\n")[2].split()
    networks = [ip_network(line) for line in blocked if not line.startswith("||")]
    assert not any(
        ip_address(address) in network
        for network in networks
        if network.version == ip_address(address).version
    )


def test_our_own_addresses_and_the_allowed_clients_are_in_the_list() -> None:
    text = acl([ip_address("198.18.0.9")], [ip_network("203.0.113.0/24")]).decode()
    clients, _, targets = text.partition("[outbound_allow_all]")
    assert clients.split() == ["[reject_all]", "[white_list]", "203.0.113.0/24"]
    assert "198.18.0.9" in targets.split()
    assert acl().decode().startswith("[accept_all]\n")


@contextmanager
def ssserver(directory: Path, config: bytes, access: bytes) -> Iterator[subprocess.Popen[str]]:
    files = {"config": directory / "config.json", "acl": directory / "acl"}
    files["config"].write_bytes(config)
    files["acl"].write_bytes(access)
    argv = [word.format(**files) for word in ARGV]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            yield process
        finally:
            process.terminate()


def test_the_real_server_accepts_it(tmp_path: Path) -> None:
    port = 20000 + os.getpid() % 20000
    config = server_config(Inbound((LOCAL,), port, SEVERAL), device="lo", dns=DNS)
    with ssserver(tmp_path, config, acl([LOCAL], [ip_network("127.0.0.0/8")])) as process:
        assert process.stdout
        up = set[Listening]()
        for line in process.stdout:
            assert summarize_line(line.rstrip("\n")) is not None, line
            if one := parse_listening(line.rstrip("\n")):
                up.add(one)
            if len(up) == 2:
                break
        assert up == {Listening("tcp", LOCAL, port), Listening("udp", LOCAL, port)}


@pytest.mark.parametrize(("allowed", "admitted"), [("127.0.0.0/8", True), ("203.0.113.0/24", False)])
def test_the_real_server_admits_the_allowed_clients_only(
    tmp_path: Path, allowed: str, admitted: bool
) -> None:
    port = 20000 + (os.getpid() + 7) % 20000
    config = server_config(Inbound((LOCAL,), port, ALONE, udp=False), device="lo", dns=DNS)
    with ssserver(tmp_path, config, acl((), [ip_network(allowed)])) as process:
        assert process.stdout
        assert any(parse_listening(line.rstrip("\n")) for line in process.stdout)
        with socket.create_connection(("127.0.0.1", port), 5) as client:
            client.settimeout(5)
            # Half a header: an admitted client is waited for, and told nothing, until it ends.
            client.sendall(b"x")
            if admitted:
                client.shutdown(socket.SHUT_WR)
            with suppress(ConnectionResetError):
                assert client.recv(1) == b""
        said = process.stdout.readline()
        assert ("access denied" in said) is not admitted
        assert summarize_line(said.rstrip("\n")) is None


@pytest.mark.parametrize(
    ("config", "access", "code", "said"),
    [
        (
            server_config(Inbound((ip_address("192.0.2.1"),), 8388, ALONE), device="lo", dns=DNS),
            acl(),
            70,
            "server aborted with Cannot assign requested address",
        ),
        (
            server_config(Inbound((LOCAL,), 8388, Credentials(ALONE.method, "QUJD")), device="lo", dns=DNS),
            acl(),
            78,
            "loading config",
        ),
        (b"{", acl(), 78, "loading config"),
    ],
)
def test_faults_of_the_real_server_reach_the_log(
    tmp_path: Path, config: bytes, access: bytes, code: int, said: str
) -> None:
    with ssserver(tmp_path, config, access) as process:
        output = process.communicate(timeout=5)[0]
    assert process.returncode == code
    told = [found for line in output.splitlines() if (found := summarize_line(line))]
    assert any(level == "error" and said in text for level, text in told)
    assert "QUJD" not in str(told)


# Seen from ssserver 1.25.0 at level 0, one of each kind.
PRIVATE = r"""
ERROR tcp client 198.51.100.9:34382 outbound 10.1.2.3:80 blocked by ACL rules
ERROR tcp client 198.51.100.9:41232 outbound target.example:80 blocked by ACL rules
ERROR tcp tunnel 198.51.100.9:41252 -> [2001:db8::1]:80 connect failed, error: Network is unreachable
ERROR tcp tunnel 198.51.100.9:41240 -> target.example:80 connect failed, error: dns resolve error
 WARN tcp handshake failed. peer: 198.51.100.9:41268, invalid client user identity b"\xef\xc8\xcbR"
 WARN tcp handshake failed. peer: [2001:db8::9]:58826, decrypt header chunk failed
 WARN tcp handshake failed. peer: 198.51.100.9:41284, header too short, expecting 59 bytes, but found 18 bytes
 WARN access denied from 198.51.100.9:4 by ACL rules
 WARN detected repeated nonce (iv/salt) b"\xef\xc8"
ERROR user with identity b"\x00\x00" not found
ERROR udp server recv packet failed. peer: [2001:db8::9]:50618, decrypt payload error
ERROR udp server recv packet failed. peer: 198.51.100.9:56798, packet too short
 WARN udp client 198.51.100.9:36505 outbound 10.9.9.9:53 blocked by ACL rules
ERROR udp relay 198.51.100.9:36505 -> target.example:53 with 5 bytes, error: dns resolve target.example:53
ERROR udp relay 198.51.100.9:36505 <- ... failed, error: Network is unreachable (os error 101)
ERROR set SO_BINDTODEVICE error: No such device (os error 19)
DEBUG established tcp tunnel 198.51.100.9:1 <-> target.example:443
 INFO target.example:443 something new in a later version
ERROR something new in a later version about target.example
198.51.100.9 without a level
"""


@pytest.mark.parametrize("line", PRIVATE.strip("\n").splitlines())
@pytest.mark.parametrize("time", ["", "2026-11-24T03:28:07.520021091Z "])
def test_clients_and_destinations_never_pass(time: str, line: str) -> None:
    assert summarize_line(time + line) is None
    assert parse_listening(time + line) is None


def test_listening_lines_of_both_families() -> None:
    line = " INFO shadowsocks udp server listening on [2001:db8::1]:8388, inbound address [2001:db8::1]:8388"
    assert parse_listening(line) == Listening("udp", ip_address("2001:db8::1"), 8388)
    assert str(parse_listening(line)) == "udp [2001:db8::1]:8388"
    assert summarize_line(line) == ("debug", line.strip().removeprefix("INFO "))
    assert summarize_line("ERROR tcp server accept failed with error: Too many open files (os error 24)") == (
        "error",
        "tcp server accept failed with error: Too many open files (os error 24)",
    )
