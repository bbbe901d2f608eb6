"""How values are written: text in, typed value out, ValueError with what is wrong.

The error of a secret's form never repeats the value. Addresses and ports are in addresses.py.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import SecretStr

from shadowsocks.method import METHODS, Method
from shadowsocks.users import parse_users


@dataclass(frozen=True, slots=True)
class Form:
    """One way to write a value; `expected` tells a person which."""

    parse: Callable[[str], object]
    expected: str


def clip(text: str) -> str:
    """Return `text` quoted for one line of a log, its end cut when it is long."""
    return ascii(text if len(text) <= 60 else text[:60] + "...")


def unknown(text: str, words: Iterable[str]) -> ValueError:
    """Return the error for a word that is none of `words`."""
    near = get_close_matches(text.lower(), list(words), 1)
    return ValueError(f"unknown; did you mean {near[0]}" if near else "unknown")


def whole(text: str, low: int, high: int, what: str = "value") -> int:
    """Read a whole number from `low` to `high`; raise ValueError."""
    if not re.fullmatch(r"[0-9]{1,10}", text):
        raise ValueError(f"{what} {clip(text)} is not a number")
    if not low <= int(text) <= high:
        raise ValueError(f"{what} {int(text)} is out of range")
    return int(text)


def number(low: int, high: int, *, besides: tuple[int, ...] = ()) -> Form:
    """Return the form of a whole number from `low` to `high`; `besides` are reserved."""

    def parse(text: str) -> int:
        value = whole(text, low, high)
        if value in besides:
            raise ValueError(f"{value} is reserved")
        return value

    return Form(parse, f"{low} to {high}")


def choice(*words: str) -> Form:
    """Return the form of one of `words`."""
    return meaning(dict(zip(words, words, strict=True)))


def meaning(words: Mapping[str, object]) -> Form:
    """Return the form of one of these words, which stand for these values."""

    def parse(text: str) -> object:
        if text.lower() not in words:
            raise unknown(text, words)
        return words[text.lower()]

    *others, last = words
    return Form(parse, f"{', '.join(others)} or {last}")


def _switch(text: str) -> bool:
    words = {"on": True, "true": True, "1": True, "yes": True}
    words |= {"off": False, "false": False, "0": False, "no": False}
    if text.lower() not in words:
        raise ValueError("neither on nor off")
    return words[text.lower()]


def _method(text: str) -> Method:
    if text in {"none", "plain", "table"}:
        raise ValueError("no encryption is refused")
    if re.search(r"-(cfb|ctr|ofb)\d*$|^(rc4.*|x?chacha20(-ietf)?|salsa20)$", text):
        raise ValueError("stream ciphers are refused: what they carry can be altered and redirected")
    if text not in METHODS:
        raise unknown(text, METHODS)
    return METHODS[text]


def duration(low: float, high: float, expected: str) -> Form:
    """Return the form of a duration of `low` to `high` seconds; a bare number is seconds."""

    def parse(text: str) -> float:
        match = re.fullmatch(r"([0-9]{1,6}(?:\.[0-9]{1,3})?)(ms|s|m|h)?", text)
        if not match:
            raise ValueError("not a duration")
        seconds = float(match[1]) * {"ms": 0.001, "s": 1, "m": 60, "h": 3600}[match[2] or "s"]
        if not low <= seconds <= high:
            raise ValueError(f"{seconds:g} s is out of range")
        return seconds

    return Form(parse, expected)


def url(*schemes: str) -> Callable[[str], str]:
    """Return a parser of URLs without user, query and fragment; a slash at the end is dropped."""

    def parse(text: str) -> str:
        try:
            parts = urlsplit(text)
            good = parts.scheme in schemes and parts.hostname and parts.port != 0 and "@" not in parts.netloc
        except ValueError:
            good = False
        if not good or not re.fullmatch(r"[!-~]+", text) or set("?#\\") & set(text):
            raise ValueError("not such a URL")
        return text.rstrip("/")

    return parse


def _path(text: str) -> Path:
    if not text.startswith("/") or not text.isprintable():
        raise ValueError("not an absolute path")
    return Path(text)


def _readable(text: str) -> Path:
    path = _path(text)
    try:
        if not path.is_file():
            raise ValueError("no such file")
        path.open("rb").close()
    except OSError as error:
        raise ValueError(error.strerror or "not readable") from None
    return path


def _interface(text: str) -> str:
    # The kernel's dev_valid_name, less what means something else to nft and in /proc/sys.
    if not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,14}", text) or text in {"lo", "all", "default"}:
        raise ValueError("not a name for an interface")
    return text


def _mtu(text: str) -> int | str:
    # IPv6 needs 1280 (RFC 8200 section 5).
    return whole(text, 1280, 1500) if text.lower() != "auto" else "auto"


def _reserved(text: str) -> str | bytes:
    if text.lower() in {"auto", "on", "off"}:
        return text.lower()
    numbers = [whole(number.strip(), 0, 255) for number in text.split(",")]
    if len(numbers) != 3:
        raise ValueError(f"{clip(text)} is not three bytes")
    return bytes(numbers)


def _label(text: str) -> str:
    if not text.isprintable() or len(text) > 64:
        raise ValueError("not a short printable name")
    return text


def _password(text: str) -> SecretStr:
    if not text.isprintable():
        raise ValueError("contains control characters")
    return SecretStr(text)


SWITCH = Form(_switch, "on or off")
METHOD = Form(_method, ", ".join(METHODS))
PATH = Form(_path, "an absolute path")
READABLE = Form(_readable, "an absolute path of a readable file")
INTERFACE = Form(_interface, "1 to 15 letters, digits, - _ .")
MTU = Form(_mtu, "1280 to 1500, or auto")
RESERVED = Form(_reserved, "auto, on, off, or three bytes: 0 to 255, comma-separated")
LABEL = Form(_label, "up to 64 printable characters")
PASSWORD = Form(_password, "printable characters")
USERS = Form(parse_users, "name[:key], comma-separated")
