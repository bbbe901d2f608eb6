"""The account on the volume: corrupt, foreign, unwritable, killed at any moment; no secret in any text."""

import base64
import logging
from pathlib import Path

import anyio
import anyio.lowlevel
import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from entrypoint.__main__ import guarded
from entrypoint.account.replies import ApiError
from entrypoint.errors import StateError
from tests.conftest import Record
from tests.fakes.box import Box
from tests.unit.account.faults import FAULTS, FINAL


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return Box(tmp_path)


def whole(box: Box) -> bytes:
    anyio.run(box.start)
    return box.path.read_bytes()


def refused(box: Box, content: bytes, calls: int) -> StateError:
    """Start on `content`, twice: no account, no call, and the file is as it was."""
    box.path.write_bytes(content)
    with pytest.raises(StateError) as caught:
        anyio.run(box.start)
    with pytest.raises(StateError):
        anyio.run(box.start)
    assert box.path.read_bytes() == content
    assert box.files() == ["account.json"]
    assert len(box.site.calls) == calls
    return caught.value


def test_c_17_cut_anywhere_the_file_is_left_alone_and_nothing_registered(box: Box) -> None:
    content = whole(box)
    for length in range(0, len(content) - 2, 7):
        error = refused(box, content[:length], calls=1)
        assert "not registering a new one" in error.message


def test_c_16_s_10_a_torn_write_of_any_length_is_removed_and_the_account_kept(
    box: Box, record: Record
) -> None:
    content = whole(box)
    account = anyio.run(box.start)
    torn = box.directory / ".account.json.new"
    for length in range(len(content) + 1):
        torn.write_bytes(content[:length])
        assert anyio.run(box.start) == account
        assert box.files() == ["account.json"]
    assert len(box.site.calls) == 1
    record(f"C-16, S-10: torn writes of 0 to {len(content)} bytes", "all removed, the account is kept")


def test_s_05_a_defect_shows_no_secret_in_its_traceback(
    box: Box, capsys: pytest.CaptureFixture[str], record: Record
) -> None:
    account = anyio.run(box.start)

    def fail() -> int:
        raise RuntimeError(f"unexpected {account!r}")

    assert guarded(fail) == 70
    said = capsys.readouterr().err
    assert "Traceback" in said and "unexpected Account(" in said
    assert account.access and account.license_key
    secrets = (account.private_key, account.access.token, account.license_key)
    assert not [one for one in secrets if one in said]
    record("S-05: a traceback around an account", f"{len(secrets)} secrets, 0 shown")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not JSON"),
        (b"\x00" * 100, "not JSON"),
        (b"[]", "expected an object"),
        (b"{}", "format: missing"),
        (b'{"format": 3, "account": {}}', "of another version of ss-warp, this one reads 2"),
        (b'{"format": "1"}', "format: expected an integer"),
        (b'{"format": 1}', "account: missing"),
        (b'{"format": 1, "account": {"kind": "free"}}', "account.private_key: missing"),
        (b'{"format": 1, "pending": {"private_key": "AQID"}}', "pending.private_key: expected the base64"),
        (b'{"method": "2022-blake3-aes-128-gcm", "password": "canary"}', "format: missing"),
        (b"[Interface]\nPrivateKey = canary\n", "not JSON"),
    ],
)
def test_c_17_foreign_files_are_left_alone(box: Box, content: bytes, words: str) -> None:
    error = refused(box, content, calls=0)
    assert words in error.message
    assert "canary" not in str(error)
    assert "\n" not in str(error)


def test_permission_to_register_again_is_removing_the_file(box: Box) -> None:
    refused(box, b"{}", calls=0)
    box.path.unlink()
    anyio.run(box.start)
    assert len(box.site.calls) == 1


@settings(max_examples=150)
@given(data=st.data())
def test_a_changed_file_is_an_account_or_a_state_error(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    box = Box(tmp_path_factory.mktemp("state"))
    content = bytearray(whole(box))
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    box.path.write_bytes(content)
    try:
        anyio.run(box.start)
    except StateError as error:
        assert "\n" not in str(error)
    assert len(box.site.calls) == 1


@pytest.mark.anyio
async def test_no_volume_no_registration(box: Box) -> None:
    box.directory = box.directory / "missing"
    with pytest.raises(StateError, match="mount a volume at"):
        await box.start()
    assert not box.site.calls


@pytest.mark.anyio
async def test_an_account_that_cannot_be_kept_is_still_used(
    box: Box, caplog: pytest.LogCaptureFixture
) -> None:
    def fill(request: httpx.Request) -> None:
        box.look(request)
        box.path.unlink()
        box.path.mkdir()  # now nothing can be put in its place

    box.site.on_call = fill
    account = await box.start()
    assert account.access and account.access.device_id in box.site.devices
    assert all(record.levelno == logging.WARNING for record in caplog.records)
    assert "cannot save the new account" in caplog.messages[-1]


@pytest.mark.anyio
async def test_s_05_secrets_are_in_no_text(
    box: Box, caplog: pytest.LogCaptureFixture, record: Record
) -> None:
    caplog.set_level(logging.DEBUG)
    texts: list[str] = []
    for fault in [*FAULTS.values(), *FINAL.values()]:
        box.site.faults.append(fault)
        try:
            account = await box.start()
        except ApiError as error:
            texts.append(repr(error) + str(error))
            box.clock.now += 301
        else:
            texts.append(repr(account))
            box.path.unlink()
    texts += [reason for reason, _ in box.told] + [line.getMessage() for line in caplog.records]
    box.path.unlink(missing_ok=True)
    account = await box.start()
    box.path.write_bytes(box.path.read_bytes()[:-40])
    with pytest.raises(StateError) as caught:
        await box.start()
    texts.append(str(caught.value))
    secrets = [
        account.private_key,
        account.access.token if account.access else "-",
        account.license_key or "-",
    ]
    secrets += [device["token"] for device in box.site.devices.values()]
    secrets += [base64.b64decode(account.private_key).hex()]
    assert not [secret for secret in secrets if secret in "\n".join(texts)]
    record("S-05: errors, reasons and log lines", f"{len(secrets)} secrets, {len(texts)} texts: 0 hits")
