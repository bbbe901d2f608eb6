"""The commands that look: status, settings, link."""

import json
import re
import subprocess
import sys
import time
from ipaddress import ip_address
from pathlib import Path

import pytest

from entrypoint.addresses import Endpoint
from entrypoint.commands.cli import command_line
from entrypoint.commands.status import watch
from entrypoint.errors import SettingsError, StateError, UsageError
from entrypoint.health.verdict import Alive
from entrypoint.status.board import Board
from entrypoint.status.states import Event
from shadowsocks.credentials import MethodKeys, SavedKeys
from tests.fakes.clock import FakeClock

KEY = "AAECAwQFBgcICQoLDA0ODw=="
ALICE, BOB = "EBESExQVFhcYGRobHB0eHw==", "ICEiIyQlJicoKSorLC0uLw=="


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state volume with keys, as the container's environment names it."""
    monkeypatch.setenv("WARP_STATE_DIR", str(tmp_path))
    kept = SavedKeys(MethodKeys(KEY, (("alice", ALICE), ("bob", BOB))))
    (tmp_path / "shadowsocks.json").write_bytes(kept.to_json())
    (tmp_path / "public-address").write_text("198.51.100.7\n")
    return tmp_path


def printed(capsys: pytest.CaptureFixture[str], *arguments: str, directory: Path = Path("/nowhere")) -> str:
    capsys.readouterr()
    assert command_line(arguments, directory) == 0
    return capsys.readouterr().out


# status


def test_status_for_people_and_for_programs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    board = Board(FakeClock(), tmp_path)
    board.show_device("kernel", Endpoint(ip_address("162.159.192.6"), 2408))
    text = printed(capsys, "status", directory=tmp_path)
    assert "state         starting since 2027-01-15T08:00:00Z: starting" in text
    assert "tunnel        kernel to 162.159.192.6:2408" in text
    found = json.loads(printed(capsys, "status", "--json", directory=tmp_path))
    assert found == json.loads((tmp_path / "status.json").read_text())
    assert (found["state"], found["implementation"]) == ("starting", "kernel")


def test_watching_shows_it_until_ctrl_c_and_survives_a_restart(tmp_path: Path) -> None:
    Board(FakeClock(), tmp_path)
    seen: list[str] = []

    def pause(seconds: float) -> None:
        if len(seen) == 3:
            raise KeyboardInterrupt
        (tmp_path / "status.json").unlink(missing_ok=True)

    watch(tmp_path, pause=pause, show=seen.append)
    assert seen[0].startswith("state ")
    assert "cannot read" in seen[2]


def test_a_supervisor_that_hangs_is_not_healthy_whatever_it_wrote(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = FakeClock(time.clock_gettime(time.CLOCK_BOOTTIME) - 100)
    board = Board(clock, tmp_path)
    board.move(Event.ACCOUNT_READY)
    board.show(Alive())
    assert json.loads((tmp_path / "status.json").read_text())["healthy"] is True
    found = json.loads(printed(capsys, "status", "--json", directory=tmp_path))
    assert (found["healthy"], found["health"]) == (False, "stale")
    assert "hung" in printed(capsys, "status", directory=tmp_path)


def test_no_status_is_said_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(StateError, match=r"cannot read .*: No such file") as caught:
        command_line(["status"], tmp_path)
    assert caught.value.exit_code == 74
    assert "is the container running" in caught.value.hint


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", "7", "\xff"])
def test_a_status_that_is_none_is_said(tmp_path: Path, content: str) -> None:
    (tmp_path / "status.json").write_text(content, "latin-1")
    with pytest.raises(StateError, match="cannot read"):
        command_line(["status"], tmp_path)


# settings


def test_settings_are_shown_and_secrets_are_not(
    state: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHADOWSOCKS_PASSWORD", KEY)
    monkeypatch.setenv("SHADOWSOCKS_USERS", f"alice:{ALICE}")
    monkeypatch.setenv("SHADOWSOCKS_PORT", "8389")
    text = printed(capsys, "settings")
    assert "  SHADOWSOCKS_PORT: 8389" in text
    assert f"  WARP_STATE_DIR: {state}" in text
    assert "  SHADOWSOCKS_PASSWORD: (hidden)" in text
    assert KEY not in text
    assert ALICE not in text


def test_wrong_settings_stop_every_command_that_reads_them(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHADOWSOCKS_PORT", "none")
    for command in ("settings", "link"):
        with pytest.raises(SettingsError, match="SHADOWSOCKS_PORT"):
            command_line([command])


# link


def test_the_link_of_the_server(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(capsys, "link") == (
        "ss://2022-blake3-aes-128-gcm:AAECAwQFBgcICQoLDA0ODw%3D%3D@198.51.100.7:8388#ss-warp\n"
    )


def test_what_is_set_goes_before_what_was_found(
    state: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHADOWSOCKS_PUBLIC_HOST", "vps.example.com")
    monkeypatch.setenv("SHADOWSOCKS_PUBLIC_PORT", "443")
    assert "@vps.example.com:443#" in printed(capsys, "link")


def test_a_qr_code_on_demand(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    uri, *code = printed(capsys, "link", "--qr").splitlines()
    assert uri.startswith("ss://")
    assert len(code) > 15
    assert len({len(row) for row in code}) == 1
    assert set("".join(code)) == set("█▀▄ ")


def test_a_qr_code_as_a_file_is_for_one_link(
    state: Path, capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert command_line(["link", "--qr", "png"]) == 0
    assert capfdbinary.readouterr().out.startswith(b"\x89PNG")
    monkeypatch.setenv("SHADOWSOCKS_USERS", "alice,bob")
    with pytest.raises(UsageError, match="for one link"):
        command_line(["link", "--qr", "svg"])


def test_the_link_that_android_reads(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    uri = printed(capsys, "link", "--base64").strip()
    assert re.fullmatch(r"ss://[\w-]+@198\.51\.100\.7:8388#ss-warp", uri)


def test_link_is_light_to_import(state: Path) -> None:
    """`docker exec … ss-warp link` runs beside the service in a container of 64 MB."""
    code = (
        "import sys; from entrypoint.commands.cli import command_line; command_line(['link']);"
        "print(*sys.modules)"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert not {"anyio", "asyncio", "httpx", "pyroute2", "nacl", "segno", "ssl"} & set(loaded.split())


def test_each_user_has_a_link(
    state: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHADOWSOCKS_USERS", "alice,bob")
    links = printed(capsys, "link").splitlines()
    assert [f"%3A{key.replace('=', '%3D')}@" in link for key, link in zip((ALICE, BOB), links, strict=True)]
    assert printed(capsys, "link", "--user", "bob").splitlines() == links[1:]
    assert [uri.partition("#")[2] for uri in links] == ["ss-warp-alice", "ss-warp-bob"]
    with pytest.raises(UsageError, match="unknown user carol"):
        command_line(["link", "--user", "carol"])


def test_no_user_where_there_are_none(state: Path) -> None:
    with pytest.raises(UsageError, match="unknown user bob"):
        command_line(["link", "--user", "bob"])


def test_a_link_changes_nothing(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path.name: path.read_bytes() for path in state.iterdir()}
    printed(capsys, "link")
    assert {path.name: path.read_bytes() for path in state.iterdir()} == before


@pytest.mark.parametrize(
    ("missing", "message"),
    [("shadowsocks.json", "no keys in .* yet"), ("public-address", "public address is unknown")],
)
def test_what_is_missing_is_said_with_what_to_do(state: Path, missing: str, message: str) -> None:
    (state / missing).unlink()
    with pytest.raises(StateError, match=message) as caught:
        command_line(["link"])
    assert caught.value.exit_code == 74
    assert caught.value.hint


def test_keys_that_cannot_be_read_are_said(state: Path) -> None:
    (state / "shadowsocks.json").write_text("{")
    with pytest.raises(StateError, match=r"shadowsocks\.json"):
        command_line(["link"])


# The command line.


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["status", "--xml"],
        ["status", "now"],
        ["link", "--user"],
        ["settings", "all"],
        ["run", "now"],
        ["healthcheck", "--deep"],
        ["explain", "--mark", "0x1ffffffff", "1.1.1.1"],
        ["explain", "--mark=-1", "1.1.1.1"],
        ["explain", "--udp", "70000", "1.1.1.1"],
        ["explain", "fe80::1%lo"],
    ],
)
def test_a_wrong_command_line_is_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError) as caught:
        command_line(arguments)
    assert caught.value.exit_code == 64
    assert "\n" not in str(caught.value)
    assert capsys.readouterr().out == ""


def test_help_names_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        command_line(["--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert all(
        f"\n    {command} " in text for command in ("run", "healthcheck", "status", "settings", "link")
    )
    assert "warm" not in text
