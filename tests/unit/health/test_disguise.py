"""A filter that knows WireGuard by what it looks like: other guises are tried, and what worked is kept."""

from dataclasses import replace
from pathlib import Path

import pytest

from entrypoint.health.ladder import Rung, SwitchEngineError
from entrypoint.health.memory import HealthMemory, Tried, following, silent_everywhere
from entrypoint.health.verdict import Alive
from entrypoint.linux.kernel_objects import Guise
from tests.unit.health.monitor_bench import ENDPOINTS, Bench, bench, quiet_httpx, watching

__all__ = ["bench", "quiet_httpx"]  # fixtures

pytestmark = pytest.mark.anyio

PLAIN, JUNK = Guise(b"\1\2\3"), Guise(b"\1\2\3", "4,40,70")
ZEROS = Guise()


@pytest.fixture
def filtered(bench: Bench, tmp_path: Path) -> Bench:
    """Everything but junk is filtered, from the start."""
    bench.edge.guises = {JUNK}
    bench.edge.config = bench.monitor.config = replace(bench.monitor.config, guise=PLAIN)
    bench.monitor.guises = (PLAIN, JUNK, ZEROS)
    bench.monitor.memory.path = tmp_path / "endpoints.json"
    return bench


async def test_once_every_port_was_silent_another_guise_is_tried_and_kept(
    filtered: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    begun = filtered.clock.now
    async with watching(filtered, 60):
        assert filtered.events.shown(Alive) - begun < 45
        rungs = filtered.events.rungs()
        assert rungs.count(Rung.DISGUISE) == 1
        assert rungs[: rungs.index(Rung.DISGUISE)].count(Rung.NEXT_ENDPOINT) >= len(ENDPOINTS) - 1
    said = [one for one in caplog.messages if "trying" in one]
    assert said == [
        "wg0: no port answers, but DNS outside does: "
        "trying junk (4,40,70) before each handshake, reserved bytes 1,2,3"
    ]
    memory = filtered.monitor.memory
    assert memory.path is not None
    assert HealthMemory.load(memory.path).guise == JUNK


async def test_what_the_settings_fix_is_never_changed(filtered: Bench) -> None:
    filtered.monitor.guises = (PLAIN,)
    async with watching(filtered, 300):
        assert Rung.DISGUISE not in filtered.events.rungs()


async def test_an_outage_outside_is_no_reason(filtered: Bench) -> None:
    filtered.outside = replace(filtered.outside, udp=False)
    async with watching(filtered, 300):
        assert Rung.DISGUISE not in filtered.events.rungs()


async def test_the_kernel_gives_way_to_userspace_which_starts_in_the_guise(filtered: Bench) -> None:
    filtered.edge.implementation = "kernel"
    filtered.monitor.can_switch = True
    with pytest.RaisesGroup(SwitchEngineError):
        async with watching(filtered, 60):
            pytest.fail("the outage lasts")
    assert filtered.monitor.memory.guise == JUNK
    assert filtered.edge.config.guise == PLAIN


async def test_a_kernel_that_was_asked_for_stays(filtered: Bench) -> None:
    filtered.edge.implementation = "kernel"
    async with watching(filtered, 300):
        assert Rung.DISGUISE not in filtered.events.rungs()


async def test_what_works_at_once_after_such_a_switch_is_written_too(filtered: Bench) -> None:
    filtered.monitor.memory.disguise(JUNK)
    filtered.edge.config = filtered.monitor.config = replace(filtered.monitor.config, guise=JUNK)
    assert await filtered.monitor.connect() == Alive()
    assert filtered.monitor.memory.path is not None
    assert HealthMemory.load(filtered.monitor.memory.path).guise == JUNK


def test_guises_take_turns() -> None:
    guises = (PLAIN, JUNK, ZEROS)
    assert [following(guises, one) for one in guises] == [JUNK, ZEROS, PLAIN]
    assert following(guises, Guise(b"\7\7\7")) == PLAIN, "the settings have changed"


@pytest.mark.parametrize(
    ("failed", "silent"), [((), False), ((0,), False), ((0, 1), True), ((0, 2), True), ((0, 1, 2), True)]
)
def test_every_port_is_all_but_the_one_in_use(failed: tuple[int, ...], silent: bool) -> None:
    known = {str(ENDPOINTS[one]): Tried(worked=50, failed=100) for one in failed}
    assert silent_everywhere(known, ENDPOINTS, 200) is silent
    assert not silent_everywhere(known, ENDPOINTS, 1000), "long ago"


@pytest.mark.parametrize("guise", ["x", [1], {"reserved": 7, "junk": ""}, {"reserved": [300], "junk": ""}])
def test_a_guise_that_makes_no_sense_counts_as_none(tmp_path: Path, guise: object) -> None:
    file = tmp_path / "endpoints.json"
    file.write_text(f'{{"endpoints": {{}}, "guise": {guise!r}}}'.replace("'", '"'))
    assert HealthMemory.load(file).guise is None
