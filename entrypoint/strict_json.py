"""JSON from strangers, read strictly: every complaint names the field, none repeats a value."""

import base64
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from typing import NoReturn

_TEXT = re.compile(r"[!-~]+")
MOST_TEXT = 512
MAX_ENTRIES = 64
"""Entries that a list may have; more is not an answer of this API."""


class InvalidError(ValueError):
    """A value is not what it should be: `field: what is wrong`."""


@dataclass(frozen=True, slots=True)
class JsonValue:
    """A JSON value and the path to it; null and absent are the same. Readers raise InvalidError.

    Cloudflare's API writes what it does not have as an empty value: `""`, `0`, `[]` and `{}` are absent, too.
    """

    value: object = field(repr=False)
    path: str = ""

    def reject(self, what: str) -> NoReturn:
        """Raise InvalidError about this field."""
        raise InvalidError(f"{self.path}: {what}" if self.path else what)

    def member(self, name: str) -> "JsonValue":
        """Return the member `name` of this object."""
        if not isinstance(self.value, dict):
            self._mistyped("an object")
        return JsonValue(self.value.get(name), f"{self.path}.{name}" if self.path else name)

    def optional[T](self, name: str, read: "Callable[[JsonValue], T]") -> T | None:
        """Return the member `name` as `read` reads it, None when it is absent."""
        member = self.member(name)
        return read(member) if member.value or member.value is False else None

    def tolerated[T](
        self, name: str, read: "Callable[[JsonValue], T]", warn: Callable[[str], object]
    ) -> T | None:
        """Return the member `name` as `optional` does; one that is wrong counts as absent, and warns."""
        try:
            return self.optional(name, read)
        except InvalidError as error:
            warn(str(error))
            return None

    def itself(self) -> "JsonValue":
        """Return this value, which is an object."""
        if not isinstance(self.value, dict):
            self._mistyped("an object")
        return self

    def entries(self) -> "list[JsonValue]":
        """Return the entries of this list."""
        if not isinstance(self.value, list):
            self._mistyped("a list")
        if len(self.value) > MAX_ENTRIES:
            self.reject(f"more than {MAX_ENTRIES} entries")
        return [JsonValue(entry, f"{self.path}[{index}]") for index, entry in enumerate(self.value)]

    def text(self, most: int = MOST_TEXT) -> str:
        """Return this string of 1 to `most` characters: printable ASCII without blanks."""
        if not isinstance(self.value, str):
            self._mistyped("a string")
        if len(self.value) > most or not _TEXT.fullmatch(self.value):
            self.reject(f"expected 1 to {most} printable characters without blanks")
        return self.value

    def number(self, least: int | None = None, most: int | None = None) -> int:
        """Return this integer, `least` to `most`."""
        if not isinstance(self.value, int) or isinstance(self.value, bool):
            self._mistyped("an integer")
        if (least is not None and self.value < least) or (most is not None and self.value > most):
            self.reject(f"expected a number in {least}..{most}")
        return self.value

    def real(self) -> float:
        """Return this number."""
        if not isinstance(self.value, int | float) or isinstance(self.value, bool):
            self._mistyped("a number")
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
            self.reject(f"expected the base64 of {count} bytes")
        return data

    def address[T: (IPv4Address, IPv6Address)](self, kind: type[T]) -> T:
        """Return this address of that kind; a prefix length after it is checked and dropped."""
        text, slash, prefix = self.text().partition("/")
        try:
            address = kind(text)
        except ValueError:
            self.reject(f"expected an {kind.__name__.removesuffix('Address')} address")
        if "%" in text:
            self.reject("expected an address without a zone")
        if slash and not (prefix.isdecimal() and int(prefix) <= address.max_prefixlen):
            self.reject(f"expected a prefix length of at most {address.max_prefixlen}")
        return address

    def _mistyped(self, wanted: str) -> NoReturn:
        self.reject("missing" if self.value is None else f"expected {wanted}")


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
        raise InvalidError("a member occurs twice")
    return members
