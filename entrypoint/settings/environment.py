"""Find each variable's text in the environment: NAME_FILE, aliases and misspelled names."""

import os
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches

from entrypoint.settings.values import clip
from entrypoint.settings.variables import Variable

LARGEST_FILE = 65536
SIMILAR = 0.85
"""Names at least this similar to a setting count as misspelled (difflib's ratio; NETWROK has 0.857)."""


@dataclass(frozen=True, slots=True)
class Given:
    """Texts by variable name, with problems and warnings; `bad` are the variables that have a problem."""

    texts: dict[str, str] = field(default_factory=dict)
    bad: set[str] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def gather(environ: Mapping[str, str], variables: Iterable[Variable]) -> Given:
    """Find each variable's text; empty counts as unset. Reads files, changes nothing."""
    given = Given()
    names: set[str] = set()
    for variable in variables:
        own = [variable.name, *variable.aliases]
        own += [f"{name}_FILE" for name in own]
        names.update(own)
        found = [name for name in own if environ.get(name)]
        if len(found) > 1:
            given.bad.add(variable.name)
            given.problems.append(f"{variable.name}: set more than once: {' and '.join(found)}; keep one")
        elif found:
            _add(environ[found[0]], found[0], variable, given)
    given.problems.extend(_misspelled(environ, names))
    return given


def _add(text: str, name: str, variable: Variable, given: Given) -> None:
    if name.removesuffix("_FILE") in variable.aliases:
        given.warnings.append(f"{name} is an alias: use {variable.name} instead")
    if name not in (variable.name, *variable.aliases):
        try:
            text = _read(text)
        except (OSError, ValueError) as error:
            # What is not a path may be the secret itself, put in the wrong variable.
            shown = clip(text) if text.startswith("/") or not variable.secret else "(hidden)"
            wrong = error.strerror if isinstance(error, OSError) else error
            given.bad.add(variable.name)
            example = f"/run/secrets/{variable.name.lower()}"
            given.problems.append(f"{name}: {wrong}: got {shown}; expected a text file, e.g. {example}")
            return
    # Trailing spaces in an env file are never intended, except perhaps in a password.
    text = text if variable.secret else text.strip()
    if text:
        given.texts[variable.name] = text


def _read(path: str) -> str:
    if "\0" in path:
        raise ValueError("not a path")
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:  # noqa: PTH123 - opened above so that a pipe cannot block
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ValueError("not a regular file")
        content = file.read(LARGEST_FILE + 1)
    if len(content) > LARGEST_FILE:
        raise ValueError("larger than 64 KiB")
    try:
        text = content.decode("utf-8-sig").removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise ValueError("not text") from None
    if not text:
        raise ValueError("empty file")
    if "\0" in text:
        raise ValueError("not text")
    return text


# A typo in the name of a kill switch's setting is a security bug, so it stops the start.
def _misspelled(environ: Mapping[str, str], names: set[str]) -> Iterable[str]:
    for name in sorted(set(environ) - names):
        near = get_close_matches(name.upper(), names, 1, SIMILAR)
        if near and environ[name]:
            yield f"{clip(name)[1:-1]}: unknown name; did you mean {near[0]}?"
