"""Exit codes and what is printed with them."""

import os
import subprocess
import sys
from collections.abc import Callable

import pytest

from entrypoint import __version__, errors
from entrypoint.__main__ import guarded
from entrypoint.firewall.killswitch import RefusedError

CODES = {
    errors.UsageError: 64,
    errors.UnhealableError: 69,
    errors.DefectError: 70,
    errors.UndoError: 71,
    errors.StateError: 74,
    errors.BusyError: 75,
    errors.PlatformError: 77,
    RefusedError: 77,
}


def raising(failure: BaseException) -> Callable[[], int]:
    def action() -> int:
        raise failure

    return action


def test_c04_every_class_of_error_has_its_code() -> None:
    direct = set(errors.Error.__subclasses__())
    assert direct == set(CODES) - {RefusedError} | {errors.SettingsError}


@pytest.mark.parametrize("kind", CODES)
@pytest.mark.parametrize("deep", [0, 1, 3])
def test_an_error_is_one_line_and_its_code(
    kind: type[errors.Error], deep: int, capsys: pytest.CaptureFixture[str]
) -> None:
    failure: Exception = kind("it is so", "do this")
    for _ in range(deep):
        failure = ExceptionGroup("unhandled errors in a TaskGroup", [failure])
    assert guarded(raising(failure)) == CODES[kind]
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", "ss-warp: it is so (do this)\n")


def test_all_problems_of_the_settings_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert guarded(raising(errors.SettingsError(["A: wrong", "B: wrong"]))) == 78
    assert capsys.readouterr().err == "ss-warp: A: wrong\nss-warp: B: wrong\n"


@pytest.mark.parametrize("deep", [False, True])
def test_a_defect_shows_where_it_is(deep: bool, capsys: pytest.CaptureFixture[str]) -> None:
    failure: Exception = KeyError("the unexpected")
    if deep:
        failure = ExceptionGroup("", [errors.PlatformError("this, too"), ExceptionGroup("", [failure])])
    assert guarded(raising(failure)) == 70
    printed = capsys.readouterr().err
    assert printed.startswith("Traceback (most recent call last):\n") or deep
    assert "KeyError: 'the unexpected'" in printed
    assert printed.endswith("ss-warp: this is a bug: please report it together with the lines above\n")


@pytest.mark.parametrize(
    "end", [KeyboardInterrupt(), SystemExit(0), BaseExceptionGroup("", [SystemExit(0), KeyboardInterrupt()])]
)
def test_being_stopped_is_no_failure(end: BaseException, capsys: pytest.CaptureFixture[str]) -> None:
    assert guarded(raising(end)) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("code", [0, 1])
def test_what_an_action_returns_is_the_code(code: int) -> None:
    assert guarded(lambda: code) == code


def entrypoint(*arguments: str, **environ: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "entrypoint", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environ},
        timeout=20,
    )
    return done.returncode, done.stdout, done.stderr


def test_the_version_from_outside() -> None:
    assert entrypoint("--version") == (0, f"ss-warp {__version__}\n", "")


@pytest.mark.parametrize(
    "arguments", [("nonsense",), ("run", "fast"), ("healthcheck", "now"), ("link", "--what")]
)
def test_a_wrong_command_line_from_outside(arguments: tuple[str, ...]) -> None:
    code, out, err = entrypoint(*arguments)
    assert (code, out) == (64, "")
    assert err.startswith("ss-warp: ")
    assert err.count("\n") == 1
    assert "ss-warp --help" in err or "takes no arguments" in err


def test_every_wrong_setting_from_outside() -> None:
    code, out, err = entrypoint(
        "settings", SHADOWSOCKS_PORT="0", SHADOWSOCKS_PASSWORD="short", LOG_LEVEL="loud"
    )
    assert (code, out) == (78, "")
    assert [line.split(":")[1].strip() for line in err.splitlines()] == [
        "SHADOWSOCKS_PORT",
        "LOG_LEVEL",
        "SHADOWSOCKS_PASSWORD",
    ]
    assert "short" not in err
