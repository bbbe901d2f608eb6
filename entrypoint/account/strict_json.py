"""JSON from strangers, read strictly: every complaint names the field, none repeats a value."""

import base64
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from typing import Final, NoReturn

_TEXT: Final = re.compile(r"[!-~]{1,512}")
MAX_ENTRIES: Final = 64
"""Entries that a list may have; more is not an answer of this API."""


class InvalidError(ValueError):
    """A value is not what it should be: `field: what is wrong`."""


@dataclass(frozen=True, slots=True)
class JsonValue:
    """A JSON value and the path to it; null and absent are the same. Readers raise InvalidError."""

    value: object = field(repr=False)
    path: str = ""

    def refuse(self, what: str) -> NoReturn:
        """Raise InvalidError about this field."""
        raise InvalidError(f"{self.path}: {what}" if self.path else what)

    def at(self, name: str) -> "JsonValue":
        """Return the member `name` of this object."""
        if not isinstance(self.value, dict):
            self._mistyped("an object")
        return JsonValue(self.value.get(name), f"{self.path}.{name}" if self.path else name)

    def maybe[T](self, name: str, read: "Callable[[JsonValue], T]") -> T | None:
        """Return the member `name` as `read` reads it, None when it is absent."""
        member = self.at(name)
        return None if member.value is None else read(member)

    def entries(self) -> "list[JsonValue]":
        """Return the entries of this list."""
        if not isinstance(self.value, list):
            self._mistyped("a list")
        if len(self.value) > MAX_ENTRIES:
            self.refuse(f"more than {MAX_ENTRIES} entries")
        return [JsonValue(entry, f"{self.path}[{index}]") for index, entry in enumerate(self.value)]

    def text(self) -> str:
        """Return this string: printable ASCII without blanks, not empty."""
        if not isinstance(self.value, str):
            self._mistyped("a string")
        if not _TEXT.fullmatch(self.value):
            self.refuse("expected 1 to 512 printable characters without blanks")
        return self.value

    def number(self) -> int:
        """Return this integer."""
        if not isinstance(self.value, int) or isinstance(self.value, bool):
            self._mistyped("an integer")
        return self.value

    def octets(self, count: int) -> bytes:
        """Return the `count` bytes whose canonical base64 this is."""
        text = self.text()
        try:
            data = base64.b64decode(text, validate=True)
        except ValueError:
            data = b""
        # Canonical base64 only: two spellings of one key would look like two keys.
        if len(data) != count or base64.b64encode(data).decode() != text:
            self.refuse(f"expected the base64 of {count} bytes")
        return data

    def address[T: (IPv4Address, IPv6Address)](self, kind: type[T]) -> T:
        """Return this address of that kind; a prefix length after it is checked and dropped."""
        text, slash, prefix = self.text().partition("/")
        try:
            address = kind(text)
        except ValueError:
            self.refuse(f"expected an {kind.__name__.removesuffix('Address')} address")
        if "%" in text:
            self.refuse("expected an address without a zone")
        if slash and not (prefix.isdecimal() and int(prefix) <= address.max_prefixlen):
            self.refuse(f"expected a prefix length of at most {address.max_prefixlen}")
        return address

    def _mistyped(self, wanted: str) -> NoReturn:
        self.refuse("missing" if self.value is None else f"expected {wanted}")


def parse_json(data: bytes) -> JsonValue:
    """Read JSON (RFC 8259): UTF-8, no NaN, no member twice. Raises InvalidError."""
    try:
        return JsonValue(json.loads(data.decode(), parse_constant=_constant, object_pairs_hook=_unique))
    except InvalidError:
        raise
    except (ValueError, RecursionError):
        raise InvalidError("not JSON") from None


def _constant(_: str) -> NoReturn:
    raise InvalidError("not JSON")


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    # Two readers could disagree about which of the two counts.
    if len(members) != len(pairs):
        raise InvalidError("a member is there twice")
    return members
