"""Undo before do: whenever the task is stopped, nothing is left, and nothing keeps the rest from running."""

import anyio
import anyio.lowlevel
import pytest

from entrypoint.errors import UndoError
from entrypoint.unwind import UnwindStack

pytestmark = pytest.mark.anyio


async def turns(number: int) -> None:
    for _ in range(number):
        await anyio.lowlevel.checkpoint()


@pytest.mark.parametrize("stop_after", range(60))
async def test_stopped_at_any_turn_nothing_is_left(stop_after: int) -> None:
    there: set[int] = set()

    async def add(thing: int) -> None:
        await turns(3)
        there.add(thing)  # a cancelled operation may still have happened: it comes before the last turn
        await turns(2)

    async def remove(thing: int) -> None:
        await turns(2)
        there.discard(thing)

    async def bring_up() -> None:
        async with UnwindStack() as stack:
            for thing in range(8):
                stack.undo(f"thing {thing}", lambda thing=thing: remove(thing))  # type: ignore[misc]
                await add(thing)
            await anyio.sleep_forever()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(bring_up)
        await turns(stop_after)
        tasks.cancel_scope.cancel()
    assert there == set()


async def test_undos_run_in_reverse_and_one_failure_skips_none() -> None:
    done: list[str] = []

    async def undo(name: str, error: Exception | None = None) -> None:
        done.append(name)
        if error:
            raise error

    with pytest.raises(UndoError, match="cannot undo second: no way") as caught:
        async with UnwindStack() as stack:
            stack.undo("first", lambda: undo("first"))
            stack.undo("second", lambda: undo("second", OSError("no way")))
            stack.undo("third", lambda: undo("third"))
    assert done == ["third", "second", "first"]
    assert caught.value.exit_code == 71


async def test_an_undo_that_hangs_is_left_behind_and_reported() -> None:
    done = []

    async def fine() -> None:
        done.append("fine")

    with pytest.raises(UndoError, match=r"cannot undo stuck: not finished within 3 s"):
        async with UnwindStack() as stack:
            stack.undo("fine", fine)
            stack.undo("stuck", anyio.sleep_forever)
    assert done == ["fine"]


async def test_the_error_that_ended_the_body_is_the_one_reported() -> None:
    async def broken() -> None:
        raise OSError("undo failed too")

    with pytest.raises(ValueError, match="the cause"):
        async with UnwindStack() as stack:
            stack.undo("thing", broken)
            raise ValueError("the cause")
