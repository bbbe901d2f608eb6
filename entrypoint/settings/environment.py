"""One declaration per variable: name, form, default, text, example."""

import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, get_origin

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from entrypoint.settings.values import ValueFormat, clip


@dataclass(frozen=True, slots=True)
class Variable:
    """An environment variable as declared, and the reader of its field.

    `default` is written as a user would write it, None where there is none; `shown` is the default
    in words where it is not a fixed text.
    """

    name: str
    form: ValueFormat
    default: str | None
    text: str
    example: str
    shown: str = ""
    secret: bool = False
    aliases: tuple[str, ...] = ()

    def __get_pydantic_core_schema__(self, source: object, of: GetCoreSchemaHandler) -> CoreSchema:
        """Parse text; a list that is not set is empty."""
        parse, absent = self.form.parse, () if get_origin(source) is tuple else None
        return core_schema.no_info_plain_validator_function(
            lambda text: absent if text is None else parse(text)
        )


def variable(
    name: str,
    form: ValueFormat,
    default: str | None,
    text: str,
    example: str,
    *,
    shown: str = "",
    **more: Any,
) -> Any:
    """Declare a field; the default, too, is a text, so that all values are read one way."""
    declaration = Field()
    declaration.metadata.append(Variable(name, form, default, text, example, shown, **more))
    return declaration


class Group(BaseModel):
    """Variables that belong together; the docstring is their heading."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def declared(group: type[BaseModel]) -> Iterator[tuple[str, Variable]]:
    """Yield field and variable of each declaration in a group."""
    for name, info in group.model_fields.items():
        yield name, next(item for item in info.metadata if isinstance(item, Variable))


LARGEST_FILE = 65536
NEAR = 0.85
"""From here on a name is taken for a typing error of ours (difflib's ratio; NETWROK has 0.857)."""


@dataclass(frozen=True, slots=True)
class Given:
    """What the environment says: texts by variable name, problems, and warnings that stop nobody.

    `bad` are the variables whose text could not be had.
    """

    texts: dict[str, str] = field(default_factory=dict)
    bad: set[str] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def gather(environ: Mapping[str, str], variables: Iterable[Variable]) -> Given:
    """Find each variable's text; unset and empty are the same. Reads files, changes nothing."""
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
            _take(environ[found[0]], found[0], variable, given)
    given.problems.extend(_nearly_ours(environ, names))
    return given


def _take(text: str, name: str, variable: Variable, given: Given) -> None:
    if name.removesuffix("_FILE") in variable.aliases:
        given.warnings.append(f"{name} is another word for {variable.name}: better use that")
    if name not in (variable.name, *variable.aliases):
        try:
            text = _content(text)
        except (OSError, ValueError) as error:
            # A path that is none may be the secret itself, put in the wrong variable.
            shown = clip(text) if text.startswith("/") or not variable.secret else "(hidden)"
            wrong = error.strerror if isinstance(error, OSError) else error
            given.bad.add(variable.name)
            example = f"/run/secrets/{variable.name.lower()}"
            given.problems.append(f"{name}: {wrong}: got {shown}; expected a text file, e.g. {example}")
            return
    # Spaces at the end of a line in an env file are nobody's intention; in a password they may be.
    text = text if variable.secret else text.strip()
    if text:
        given.texts[variable.name] = text


def _content(path: str) -> str:
    if "\0" in path:
        raise ValueError("not a path")
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:  # noqa: PTH123 – a pipe must not block us, so it is opened as above
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


def _nearly_ours(environ: Mapping[str, str], names: set[str]) -> Iterable[str]:
    for name in sorted(set(environ) - names):
        near = get_close_matches(name.upper(), names, 1, NEAR)
        if near and environ[name]:
            yield f"{clip(name)[1:-1]}: unknown name; did you mean {near[0]}?"
