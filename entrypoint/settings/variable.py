"""One declaration per variable: name, form, default, text, example."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, get_origin

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from entrypoint.settings.forms import Form


@dataclass(frozen=True, slots=True)
class Variable:
    """An environment variable as declared, and the reader of its field.

    `default` is written as a user would write it, None where there is none; `shown` is the default
    in words where it is not a fixed text.
    """

    name: str
    form: Form
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
    name: str, form: Form, default: str | None, text: str, example: str, *, shown: str = "", **more: Any
) -> Any:
    """Declare a field; the default, too, is a text, so that all values are read one way."""
    field = Field()
    field.metadata.append(Variable(name, form, default, text, example, shown, **more))
    return field


class Group(BaseModel):
    """Variables that belong together; the docstring is their heading."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def declared(group: type[BaseModel]) -> Iterator[tuple[str, Variable]]:
    """Yield field and variable of each declaration in a group."""
    for field, info in group.model_fields.items():
        yield field, next(item for item in info.metadata if isinstance(item, Variable))
