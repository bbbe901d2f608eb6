"""Ten thousand broken answers, account files, imports: an account or one clear line, nothing half, no secret.

FUZZ says how many of each, FUZZ_SEED which ones.
"""

import json
import logging
import os
import random
import resource
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

import anyio
import httpx
import pytest

from entrypoint.account.api import Profile, WarpApi
from entrypoint.account.formats import read_profile
from entrypoint.account.model import new_private_key
from entrypoint.account.replies import Reply
from entrypoint.account.store import edit, load, parse
from entrypoint.errors import Error, StateError
from entrypoint.strict_json import InvalidError, parse_json
from tests.conftest import Record
from tests.fakes.accidents import mutated, reshaped
from tests.fakes.box import HOST, Box
from tests.fakes.warp_api import EDGE_KEY, device_object
from tests.unit.account.pasted import DEVICE, FLAT, LINES, PLAIN, WGCF_PROFILE

MANY = int(os.environ.get("FUZZ", "10000"))
SEED = int(os.environ.get("FUZZ_SEED", "5"))
MEMORY = 20 << 10
"""KiB that all of it may take beyond what the first hundred took."""


@dataclass
class Tally:
    """What came of it, and what it took."""

    accepted: int = 0
    refused: int = 0
    longest: int = 0
    begun: float = 0.0
    before: int = 0

    def line(self, text: str, secrets: tuple[str, ...]) -> None:
        """Take note of a refusal; it is one line and shows no secret."""
        self.refused += 1
        self.longest = max(self.longest, len(text))
        assert text and "\n" not in text and text.isprintable(), repr(text)
        assert not [one for one in secrets if one in text], text

    def each(self) -> Iterator[random.Random]:
        """Yield a source of chance for each case; the number of the failing one is in the traceback."""
        self.begun = time.monotonic()
        for number in range(MANY):
            if number == min(100, MANY - 1):
                self.before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            yield random.Random(f"{SEED} {number}")

    def figure(self) -> str:
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - self.before
        assert grown <= MEMORY
        took = time.monotonic() - self.begun
        return (
            f"{self.accepted} accepted, {self.refused} refused in one line of at most {self.longest} "
            f"characters, 0 tracebacks, 0 partial files, 0 secrets; {grown / 1024:.1f} MiB more memory, "
            f"{took:.0f} s"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Answering(WarpApi):
    """The API without a wire: 10,000 connections would take minutes, and test_api_answers.py has them."""

    replies: list[Reply] = field(default_factory=list)

    async def _exchange(
        self, method: str, ways: list[tuple[Profile, httpx.URL]], content: bytes, headers: Mapping[str, str]
    ) -> Reply:
        return self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]


class Answered(Box):
    """A box whose API gives these answers."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.answers: list[Reply] = []

    @property
    def api(self) -> WarpApi:
        return Answering(
            **{one.name: getattr(super().api, one.name) for one in fields(WarpApi)}, replies=self.answers
        )


@pytest.fixture
def box() -> Iterator[Answered]:
    """A state directory that is not on a disk."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
        yield Answered(Path(directory))


class Lines(logging.Handler):
    """What was logged."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())


@pytest.fixture
def lines() -> Iterator[Lines]:
    log, lines = logging.getLogger("ss-warp"), Lines()
    log.addHandler(lines)
    yield lines
    log.removeHandler(lines)


@pytest.mark.timeout(600)
def test_a_07_a_08_ten_thousand_broken_answers(box: Answered, lines: Lines, record: Record) -> None:
    """Each is a first start; where an answer may be asked for again, the second is whole."""
    tally, again = Tally(), 0

    async def run() -> None:
        nonlocal again
        for chance in tally.each():
            device = device_object(EDGE_KEY)
            secrets = (device["token"], device["account"]["license"])
            whole = json.dumps(device).encode()
            body = mutated(whole, chance) if chance.randrange(2) else reshaped(device, chance)
            status = chance.choice([200] * 12 + [201, 204, 302, 400, 401, 403, 404, 429, 500, 503])
            later = str(chance.choice(["", "1", "x", "-1", "9" * 30]))
            box.answers[:] = [Reply(HOST, status, body, later), Reply(HOST, 200, whole)]
            try:
                await box.start()
                tally.accepted += 1
            except Error as error:
                tally.line(str(error), secrets)
            again += bool(box.told)
            for text in (*lines.said, *(reason for reason, _ in box.told)):
                assert not [one for one in secrets if one in text], text
            assert parse(parse_json(box.path.read_bytes())), "whole, whatever came"
            assert box.files() == ["account.json"]
            box.path.unlink()
            for used in (lines.said, box.told, box.clock.slept):
                used.clear()

    anyio.run(run)
    assert tally.accepted > MANY / 100 and tally.refused > MANY / 10
    record(f"A-07, A-08: {MANY} broken answers of the API", f"{again} asked again; {tally.figure()}")


@pytest.mark.timeout(600)
def test_c_17_ten_thousand_broken_account_files(box: Answered, record: Record) -> None:
    box.answers[:] = [Reply(HOST, 200, json.dumps(device_object(EDGE_KEY)).encode())]
    anyio.run(box.start)
    kept = edit(box.path, lambda it: replace(it, next_private_key=new_private_key(), license_key="Zz-Yy"))
    whole = box.path.read_bytes()
    pending = json.dumps({"format": 2, "pending": {"private_key": EDGE_KEY, "api": "https://a", "due": 1.5}})
    tally = Tally()
    for chance in tally.each():
        file = chance.choice([whole, whole, whole, pending.encode()])
        data = mutated(file, chance) if chance.randrange(2) else reshaped(json.loads(file), chance)
        box.path.write_bytes(data)
        try:
            found = load(box.path)
            tally.accepted += 1
            assert found is not None and box.path.read_bytes() == data, "reading changes nothing"
        except StateError as error:
            tally.line(str(error), (*kept.secrets, EDGE_KEY))
            assert box.path.read_bytes() == data, "left alone"
    assert tally.accepted > MANY / 100 and tally.refused > MANY / 10
    record(f"C-17: {MANY} broken account files", tally.figure())


FORMS: dict[str, Callable[[], str]] = {
    "wgcf's account": lambda: (
        f"access_token = 'tok'\ndevice_id = 'dev'\nprivate_key = '{new_private_key()}'\n"
    ),
    "wgcf's profile": lambda: WGCF_PROFILE,
    "a profile": lambda: PLAIN,
    "warp-reg": lambda: LINES,
    "JSON": lambda: json.dumps(FLAT),
    "a device": lambda: json.dumps(DEVICE),
}


def test_ten_thousand_broken_files_to_import(record: Record) -> None:
    secrets = (str(DEVICE["private_key"]), str(DEVICE["token"]), "99999999-8888-4777-8666-555555555555")
    tally = Tally()
    for chance in tally.each():
        text = FORMS[chance.choice(list(FORMS))]()
        try:
            read_profile(mutated(text.encode(), chance))
            tally.accepted += 1
        except InvalidError as error:
            tally.line(str(error), secrets)
    assert tally.accepted > MANY / 100 and tally.refused > MANY / 10
    record(f"{MANY} broken files to import", tally.figure())


def test_the_accidents_reach_every_part_and_can_fail() -> None:
    """A fuzz that always broke the first byte would prove nothing."""
    whole = json.dumps(device_object(EDGE_KEY)).encode()
    cases = [mutated(whole, random.Random(number)) for number in range(300)]
    assert len(set(cases)) > 290
    common = [
        next((at for at, pair in enumerate(zip(whole, case, strict=False)) if pair[0] != pair[1]), len(case))
        for case in cases
    ]
    assert min(common) < 20 and max(common) > len(whole) - 60
    with pytest.raises(AssertionError):
        Tally().line("the token is canary", ("canary",))
