"""UnwindStack: an AsyncExitStack whose undos run to the end, whatever happens to the task."""

import logging
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any

import anyio

from entrypoint.errors import UndoError

UNDO_DEADLINE = 3.0
"""Seconds each undo may take: a stop takes a tenth of one, on a slow and busy machine two or three."""


class UnwindStack(AsyncExitStack):
    """Registers undos *before* what they take back, and unwinds shielded, each with its own deadline.

    A cancelled operation may still have happened, so an undo is registered first and must accept
    "not there". An undo that raises or runs out of time does not keep the others from running; all
    failures are raised together at the end as UndoError, or logged when another error is on its way.
    """

    def __init__(self) -> None:
        super().__init__()
        self._failed: list[str] = []

    def undo(self, what: str, action: Callable[[], Awaitable[object]]) -> None:
        """Register `action`, named `what` in messages, to run when the stack unwinds."""

        async def run(*_: object) -> None:
            try:
                with anyio.fail_after(UNDO_DEADLINE):
                    await action()
            except TimeoutError:
                self._failed.append(f"{what}: no end within {UNDO_DEADLINE:g} s")
            except Exception as error:
                self._failed.append(f"{what}: {error}")

        self.push_async_exit(run)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        """Unwind everything, then report what could not be undone."""
        with anyio.CancelScope(shield=True):
            swallowed = await super().__aexit__(kind, error, traceback)
        if self._failed:
            sentence = "cannot undo " + "; ".join(self._failed)
            if error is None or isinstance(error, _cancelled()):
                raise UndoError(sentence)
            logging.getLogger("ss-warp").warning("%s", sentence)
        return bool(swallowed)


def _cancelled() -> type[BaseException]:
    return anyio.get_cancelled_exc_class()


type Undo = Callable[[], Awaitable[Any]]
