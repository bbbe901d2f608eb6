import os
from dataclasses import replace
from pathlib import Path

import pytest

from entrypoint.errors import SettingsError
from entrypoint.settings import VARIABLES, load
from entrypoint.settings.environment import _remedy

KEY = "q83vASNFZ4mrze8BI0Vniw=="


def problem(environ: dict[str, str]) -> str:
    with pytest.raises(SettingsError) as caught:
        load(environ)
    (line,) = caught.value.problems
    return str(line)


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
@pytest.mark.parametrize("start", ["", "\ufeff"])
def test_a_file_holds_the_value(tmp_path: Path, start: str, end: str) -> None:
    file = tmp_path / "password"
    file.write_bytes(f"{start}{KEY}{end}".encode())
    password = load({"SHADOWSOCKS_PASSWORD_FILE": str(file)}).shadowsocks.password
    assert password
    assert password.reveal() == KEY


@pytest.mark.parametrize("name", VARIABLES)
def test_every_name_takes_a_file(name: str) -> None:
    assert problem({f"{name}_FILE": "/nowhere/at/all"}).startswith(
        f"{name}_FILE: No such file or directory: got '/"
    )


def test_an_alias_takes_a_file(tmp_path: Path) -> None:
    (tmp_path / "method").write_text("aes-128-gcm\n")
    found = load({"SHADOWSOCKS_CIPHER_FILE": str(tmp_path / "method")})
    assert found.shadowsocks.method.name == "aes-128-gcm"
    assert found.warnings


def test_a_line_end_within_a_secret_is_refused(tmp_path: Path) -> None:
    (tmp_path / "password").write_text(f"{KEY}\n{KEY}\n")
    assert "control characters" in problem({"SHADOWSOCKS_PASSWORD_FILE": str(tmp_path / "password")})


def test_a_file_that_only_its_owner_reads_is_explained(tmp_path: Path) -> None:
    """Root in the container has no DAC_OVERRIDE: it reads what is its own or world-readable."""
    said = _remedy(PermissionError(13, "Permission denied"), VARIABLES["SHADOWSOCKS_PASSWORD"])
    assert "chmod 644" in said
    line = problem({"SHADOWSOCKS_PASSWORD_FILE": str(tmp_path)})
    assert "recreate the container" in line, "Docker makes a directory of a file that does not exist"


def test_an_account_of_another_image_is_never_ignored() -> None:
    """Beside it a new device would be registered."""
    for name in ("WIREGUARD_PRIVATE_KEY", "WIREGUARD_PRIVATE_KEY_SECRETFILE", "WIREGUARD_CONF_SECRETFILE"):
        line = problem({name: "hunter2hunter2"})
        assert "WARP_IMPORT_FILE" in line
        assert "hunter2" not in line


@pytest.mark.parametrize(
    ("name", "text", "meant"),
    [
        ("TEAMS_TOKEN", "eyJ0.eyJl.c2ln", "WARP_TEAM_TOKEN"),
        ("WARP_LICENSE", "Ab12Cd34-Ef56Gh78-Ij90Kl12", "WARP_LICENSE_KEY"),
        ("WARP_PLUS_KEY", "Ab12Cd34-Ef56Gh78-Ij90Kl12", "WARP_LICENSE_KEY"),
        ("WARP_ENDPOINT", "162.159.192.1:500", "WARP_ENDPOINTS"),
        ("ENDPOINT_IP", "162.159.192.1:500", "WARP_ENDPOINTS"),
        ("DNS_ADDRESS", "9.9.9.9", "DNS_ADDRESSES"),
    ],
)
def test_names_of_other_images_are_taken_with_a_warning(name: str, text: str, meant: str) -> None:
    found = load({name: text})
    assert replace(found, texts={}, warnings=()) == replace(load({meant: text}), texts={})
    assert found.warnings == (f"{name} is an alias: use {meant} instead",)


def test_gluetuns_suffix_for_secrets(tmp_path: Path) -> None:
    (tmp_path / "password").write_text(KEY)
    found = load({"SHADOWSOCKS_PASSWORD_SECRETFILE": str(tmp_path / "password")})
    assert found.shadowsocks.password and found.shadowsocks.password.reveal() == KEY
    assert found.warnings == (
        "SHADOWSOCKS_PASSWORD_SECRETFILE is an alias: use SHADOWSOCKS_PASSWORD_FILE instead",
    )


@pytest.mark.parametrize(
    "name",
    [
        "WIREGUARD_ADDRESSES",
        "SHADOWSOCKS_LISTENING_ADDRESS",
        "GOST_ARGS",
        "WARP_KEY",
        "HEALTH_VPN_DURATION_INITIAL",
    ],
)
def test_what_is_ignored_is_said(name: str) -> None:
    (warning,) = load({name: "hunter2hunter2"}).warnings
    assert warning.startswith(f"{name} is ignored: ")
    assert "hunter2" not in warning


def test_kubernetes_service_links_are_ignored_with_one_line() -> None:
    found = load({"SHADOWSOCKS_PORT": "tcp://10.96.0.12:8388"})
    assert found.shadowsocks.port == 8388
    assert len(found.warnings) == 1
    assert problem({"SHADOWSOCKS_PORT": "tcp://shadowsocks:8388"}).startswith("SHADOWSOCKS_PORT: ")


@pytest.mark.parametrize(
    ("content", "wrong"),
    [
        (b"", "empty file"),
        (b"\n", "empty file"),
        (b"a" * 65537, "larger than 64 KiB"),
        (b"\xff\xfe\x00", "not text"),
        (b"a\0b", "not text"),
    ],
)
def test_what_a_file_must_not_be(tmp_path: Path, content: bytes, wrong: str) -> None:
    file = tmp_path / "password"
    file.write_bytes(content)
    line = problem({"SHADOWSOCKS_PASSWORD_FILE": str(file)})
    assert line.startswith(f"SHADOWSOCKS_PASSWORD_FILE: {wrong}: got '{str(file)[:20]}")
    assert "e.g. /run/secrets/shadowsocks_password" in line


def test_neither_a_directory_nor_a_pipe_that_would_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert "not a regular file" in problem({"LOG_LEVEL_FILE": str(tmp_path / "pipe")})
    assert "directory" in problem({"LOG_LEVEL_FILE": str(tmp_path)})


def test_a_secret_in_the_place_of_its_path_is_not_repeated() -> None:
    assert KEY not in problem({"SHADOWSOCKS_PASSWORD_FILE": KEY})


@pytest.mark.parametrize(
    "pair",
    [
        ("SHADOWSOCKS_METHOD", "SHADOWSOCKS_METHOD_FILE"),
        ("SHADOWSOCKS_METHOD", "SHADOWSOCKS_CIPHER"),
        ("SHADOWSOCKS_CIPHER", "SHADOWSOCKS_METHOD_FILE"),
    ],
)
def test_one_value_in_two_places_is_refused(pair: tuple[str, str]) -> None:
    line = problem(dict.fromkeys(pair, "aes-128-gcm"))
    assert line.startswith("SHADOWSOCKS_METHOD: set more than once: ")
    assert all(name in line for name in pair)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("FIREWAL", "FIREWALL"),
        ("FIREWALLL", "FIREWALL"),
        ("firewall", "FIREWALL"),
        ("NETWROK", "NETWORK"),
        ("SHADOWSOCK_PASSWORD", "SHADOWSOCKS_PASSWORD"),
        ("SHADOWSOCKS_PASSWORD_FLIE", "SHADOWSOCKS_PASSWORD_FILE"),
        ("FIREWALL_OUTBOUND_SUBNET", "FIREWALL_OUTBOUND_SUBNETS"),
        # gluetun's, and not what it says here.
        ("FIREWALL_VPN_INPUT_PORTS", "FIREWALL_INPUT_PORTS"),
        ("WARP_LICENCE_KEY", "WARP_LICENSE_KEY"),
    ],
)
def test_a_name_that_is_nearly_ours_is_refused(name: str, meant: str) -> None:
    assert problem({name: "hunter2hunter2"}) == f"{name}: unknown name; did you mean {meant}?"


def test_names_of_others_are_none_of_our_business() -> None:
    others = {
        "PATH": "/bin",
        "HOSTNAME": "vps",
        "NETWORK_MODE": "bridge",
        "LOGNAME": "root",
        # What Kubernetes sets in every container beside a service called shadowsocks.
        "SHADOWSOCKS_SERVICE_HOST": "10.0.0.1",
        "SHADOWSOCKS_SERVICE_PORT": "8388",
        "SHADOWSOCKS_PORT_8388_TCP": "tcp://10.0.0.1:8388",
        "SHADOWSOCKS_PORT_8388_TCP_ADDR": "10.0.0.1",
        "FIREWAL": "",
    }
    assert load(others) == load({})


def test_spaces_around_a_value_do_not_count_except_in_a_secret() -> None:
    found = load({"FIREWALL": " off ", "SHADOWSOCKS_METHOD": "aes-128-gcm\n", "LOG_LEVEL": "  "})
    assert not found.firewall.on
    assert found.logs.level == "info"
    secret = load({"SHADOWSOCKS_METHOD": "aes-128-gcm", "SHADOWSOCKS_PASSWORD": " sixteen characters "})
    assert secret.shadowsocks.password
    assert secret.shadowsocks.password.reveal() == " sixteen characters "


def test_values_are_never_executed(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    for text in (f"$(touch {mark})", f"; touch {mark}", f"`touch {mark}`"):
        load({"WARP_DEVICE_NAME": text[:64]})
    assert not mark.exists()
