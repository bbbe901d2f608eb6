"""Start a command and turn its outcome into an exit code.

Light: `run` closes the firewall before it imports anything expensive.
"""

import os
import sys
from collections.abc import Callable, Iterator

from entrypoint.errors import Error

STOPPED = 0
DEFECT = 70


def main() -> int:
    command, *arguments = sys.argv[1:] or ["run"]
    # Docker runs this every few seconds: a new Python that imports nothing big, some 40 ms of one core.
    if command == "healthcheck" and not arguments:
        from entrypoint.status.heartbeat import healthcheck

        code, sentence = healthcheck()
        print(sentence)
        return code
    if command == "run" and not arguments:
        return _run()
    # Late, here and below: each command imports only what it needs, and `run` nothing before it is closed.
    from entrypoint.commands.cli import command_line

    return command_line([command, *arguments])


def _run() -> int:
    """Close the firewall, then start the supervisor; a stop signal exits with 0 at any moment."""
    import resource
    import signal

    from entrypoint.early.preflight import IGNORED, STOP

    # Until the supervisor has its own handlers a signal ends the process at once. tini turns 143 into 0 for
    # the moment before this line.
    for number in STOP:
        signal.signal(number, _stop)
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core dump contains every key; children inherit this
    from entrypoint.early import preflight
    from entrypoint.early.close import load_settings_closed

    # Before the firewall: without NET_ADMIN nft's error would hide the real reason.
    preflight.check_privileges(*preflight.read_privileges())
    settings = load_settings_closed(os.environ)
    from entrypoint.linux.state_dir import lock

    # A missing TUN, an unwritable or busy volume: report it before half a second of imports.
    if settings.tunnel.implementation == "userspace":
        preflight.require_tun()
    with lock(settings.account.state_dir):
        pass
    from entrypoint.supervisor import serve

    return serve(settings)


def _stop(*_: object) -> None:
    """Exit at once: nothing needs undoing yet, and an import could swallow an exception."""
    os._exit(STOPPED)


def guarded(action: Callable[[], int]) -> int:
    """Call `action`; print its failure for people and return the exit code."""
    try:
        return action()
    except BaseException as failure:
        # A task group raises a group: a bug anywhere in it outranks the errors that a person can fix.
        known = [error for error in _leaves(failure) if isinstance(error, Error)]
        defects = [
            error
            for error in _leaves(failure)
            if not isinstance(error, Error | KeyboardInterrupt | SystemExit)
        ]
        if defects:
            import traceback

            traceback.print_exception(defects[0])
            print("ss-warp: this is a bug: please report it together with the lines above", file=sys.stderr)
            return DEFECT
        if not known:
            return STOPPED
        for line in str(known[0]).splitlines():
            print(f"ss-warp: {line}", file=sys.stderr)
        return known[0].exit_code


def _leaves(failure: BaseException) -> Iterator[BaseException]:
    if isinstance(failure, BaseExceptionGroup):
        for inner in failure.exceptions:
            yield from _leaves(inner)
    else:
        yield failure


if __name__ == "__main__":
    sys.exit(guarded(main))
