"""`ss-warp account …` on a state directory: what it shows, what it writes down while a supervisor runs."""

import io
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from entrypoint.account.model import public_key
from entrypoint.account.store import edit, read
from entrypoint.commands.account import describe_account
from entrypoint.commands.cli import command_line
from entrypoint.errors import SettingsError, StateError, UsageError
from entrypoint.linux import state_dir
from tests.fakes.box import Box

KEY = "Zz12Cd34-Ef56Gh78-Ij90Kl12"


@pytest.fixture
def box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Box:
    monkeypatch.setenv("WARP_STATE_DIR", str(tmp_path))
    box = Box(tmp_path)
    anyio.run(box.start)
    return box


@pytest.fixture
def running(box: Box) -> Iterator[None]:
    """A supervisor that holds the state directory."""
    with state_dir.lock(box.directory):
        yield


def said(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert command_line(["account", *words]) == 0
    return capsys.readouterr().out


@pytest.mark.usefixtures("running")
def test_show_hides_every_secret(box: Box, capsys: pytest.CaptureFixture[str]) -> None:
    kept = read(box.path)
    text = said(capsys, "show")
    account = kept.account
    assert account.access
    assert f"device      {account.access.device_id}" in text
    assert public_key(account.private_key) in text
    assert "reserved    1,2,3" in text
    assert not [secret for secret in kept.secrets if secret in text]


def test_show_says_what_is_still_to_be_done(box: Box) -> None:
    kept = read(box.path)
    busy = replace(kept, next_private_key=kept.account.private_key, license_key=KEY, leaving=True)
    assert len(describe_account(busy)) == len(describe_account(kept)) + 3
    assert KEY not in "\n".join(describe_account(busy))


def test_show_touches_nothing_that_is_broken(box: Box) -> None:
    box.path.write_bytes(b"{")
    with pytest.raises(StateError, match=r"cannot read the account .* not JSON"):
        command_line(["account", "show"])
    assert box.files() == ["account.json"]


@pytest.mark.usefixtures("running")
@pytest.mark.parametrize(
    ("words", "told", "member"),
    [
        (("license", KEY), "bind the licence key when it next starts", "license_key"),
        (("rotate-key",), "replace the key when it next starts", "next_private_key"),
        (("delete", "--yes"), "unregister the device when it next stops", "leaving"),
    ],
)
def test_written_down_while_it_runs(
    box: Box, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], told: str, member: str
) -> None:
    before = read(box.path).account
    text = said(capsys, *words)
    assert text.startswith("saved: ")
    assert told in text
    first = json.loads(box.path.read_text())[member]
    said(capsys, *words)
    assert json.loads(box.path.read_text())[member] == first, "twice is once"
    assert read(box.path).account == before
    assert len(box.site.calls) == 1


def test_delete_asks_and_nobody_answers(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    content = box.path.read_bytes()
    with open("/dev/null") as nobody:  # noqa: PTH123
        monkeypatch.setitem(vars(sys), "stdin", nobody)
        with pytest.raises(UsageError, match="add --yes"):
            command_line(["account", "delete"])
    assert box.path.read_bytes() == content


@pytest.mark.usefixtures("running")
@pytest.mark.parametrize(("answer", "leaving"), [("yes", True), ("no", False), ("y", False), ("", False)])
def test_delete_asks_a_person_and_takes_only_yes_for_it(
    box: Box, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], answer: str, leaving: bool
) -> None:
    near, far = os.openpty()
    with os.fdopen(near, "wb", buffering=0) as person, os.fdopen(far) as terminal:
        person.write(f"{answer}\n".encode())
        monkeypatch.setitem(vars(sys), "stdin", terminal)
        assert command_line(["account", "delete"]) == 0
    asked = capsys.readouterr().out
    kept = read(box.path)
    assert kept.account.access and f"Unregister the device {kept.account.access.device_id}" in asked
    assert kept.leaving is leaving
    assert ("nothing was changed" in asked) is not leaving


def test_the_key_already_bound_is_no_change(box: Box, capsys: pytest.CaptureFixture[str]) -> None:
    own = read(box.path).account.license_key
    assert own
    content = box.path.read_bytes()
    assert "already bound" in said(capsys, "license", own)
    assert box.path.read_bytes() == content


def test_the_setting_wins_over_the_command(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WARP_LICENSE_KEY", KEY)
    with pytest.raises(UsageError, match="WARP_LICENSE_KEY is set"):
        command_line(["account", "license", KEY])


def test_no_licence_key_at_all(box: Box) -> None:
    with pytest.raises(UsageError) as caught:
        command_line(["account", "license", "a b"])
    assert str(caught.value) == "KEY: not a licence key (expected letters, digits and dashes)"


@pytest.mark.usefixtures("running")
def test_the_licence_key_by_standard_input(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """As an argument it would show in the host's list of processes."""
    monkeypatch.setitem(vars(sys), "stdin", io.StringIO(f"{KEY}\r\n"))
    assert command_line(["account", "license"]) == 0
    assert read(box.path).license_key == KEY


@pytest.mark.usefixtures("running")
def test_delete_does_not_advise_a_restart(box: Box, capsys: pytest.CaptureFixture[str]) -> None:
    """A restart would register another device, which is one registration spent."""
    text = said(capsys, "delete", "--yes")
    assert "docker compose stop" in text
    assert "restart" not in text


@pytest.mark.parametrize("words", [("license", KEY), ("rotate-key",)])
def test_an_imported_profile_cannot_be_changed(box: Box, words: tuple[str, ...]) -> None:
    edit(box.path, lambda kept: replace(kept, account=replace(kept.account, kind="imported", access=None)))
    with pytest.raises(UsageError, match="without a token"):
        command_line(["account", *words])
    assert "unknown (imported" in "\n".join(describe_account(read(box.path)))


@pytest.mark.parametrize("words", [("show",), ("rotate-key",), ("delete", "--yes"), ("license", KEY)])
def test_without_an_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]) -> None:
    monkeypatch.setenv("WARP_STATE_DIR", str(tmp_path))
    with pytest.raises(StateError, match=r"there is no .*account\.json yet"):
        command_line(["account", *words])


def test_settings_that_are_wrong_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WARP_STATE_DIR", "here")
    with pytest.raises(SettingsError):
        command_line(["account", "show"])
