"""How values are written: text in, typed value out, ValueError with what is wrong.

The error of a secret's form never repeats the value. Addresses and ports are in addresses.py.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from ipaddress import IPv6Address, ip_address, ip_network
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from pydantic import SecretStr

from entrypoint.addresses import Address, Endpoint, NamedEndpoint, Network, Ports, parse_endpoint
from shadowsocks.credentials import METHODS, Method, parse_users


@dataclass(frozen=True, slots=True)
class ValueFormat:
    """One way to write a value; `expected` tells a person which."""

    parse: Callable[[str], object]
    expected: str


def clip(text: str) -> str:
    """Return `text` quoted for one line of a log, its end cut when it is long."""
    return ascii(text if len(text) <= 60 else text[:60] + "...")


def unknown_word(text: str, words: Iterable[str]) -> ValueError:
    """Return the error for a word that is none of `words`."""
    near = get_close_matches(text.lower(), list(words), 1)
    return ValueError(f"unknown; did you mean {near[0]}" if near else "unknown")


def integer(text: str, low: int, high: int, what: str = "value") -> int:
    """Read a whole number from `low` to `high`; raise ValueError."""
    if not re.fullmatch(r"[0-9]{1,10}", text):
        raise ValueError(f"{what} {clip(text)} is not a number")
    if not low <= int(text) <= high:
        raise ValueError(f"{what} {int(text)} is out of range")
    return int(text)


def number(low: int, high: int, *, besides: tuple[int, ...] = ()) -> ValueFormat:
    """Return the form of a whole number from `low` to `high`; `besides` are reserved."""

    def parse(text: str) -> int:
        value = integer(text, low, high)
        if value in besides:
            raise ValueError(f"{value} is reserved")
        return value

    return ValueFormat(parse, f"{low} to {high}")


def choice(*words: str) -> ValueFormat:
    """Return the form of one of `words`."""
    return one_of(dict(zip(words, words, strict=True)))


def one_of(words: Mapping[str, object]) -> ValueFormat:
    """Return the form of one of these words, which stand for these values."""

    def parse(text: str) -> object:
        if text.lower() not in words:
            raise unknown_word(text, words)
        return words[text.lower()]

    *others, last = words
    return ValueFormat(parse, f"{', '.join(others)} or {last}")


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
        raise unknown_word(text, METHODS)
    return METHODS[text]


def duration(low: float, high: float, expected: str) -> ValueFormat:
    """Return the form of a duration of `low` to `high` seconds; a bare number is seconds."""

    def parse(text: str) -> float:
        match = re.fullmatch(r"([0-9]{1,6}(?:\.[0-9]{1,3})?)(ms|s|m|h)?", text)
        if not match:
            raise ValueError("not a duration")
        seconds = float(match[1]) * {"ms": 0.001, "s": 1, "m": 60, "h": 3600}[match[2] or "s"]
        if not low <= seconds <= high:
            raise ValueError(f"{seconds:g} s is out of range")
        return seconds

    return ValueFormat(parse, expected)


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
    return integer(text, 1280, 1500) if text.lower() != "auto" else "auto"


def _reserved(text: str) -> str | bytes:
    if text.lower() in {"auto", "on", "off"}:
        return text.lower()
    numbers = [integer(number.strip(), 0, 255) for number in text.split(",")]
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


SWITCH = ValueFormat(_switch, "on or off")
METHOD = ValueFormat(_method, ", ".join(METHODS))
PATH = ValueFormat(_path, "an absolute path")
READABLE = ValueFormat(_readable, "an absolute path of a readable file")
INTERFACE = ValueFormat(_interface, "1 to 15 letters, digits, - _ .")
MTU = ValueFormat(_mtu, "1280 to 1500, or auto")
RESERVED = ValueFormat(_reserved, "auto, on, off, or three bytes: 0 to 255, comma-separated")
LABEL = ValueFormat(_label, "up to 64 printable characters")
PASSWORD = ValueFormat(_password, "printable characters")
USERS = ValueFormat(parse_users, "name[:key], comma-separated")


def comma_separated[T](parse: Callable[[str], T]) -> Callable[[str], tuple[T, ...]]:
    """Return a parser of comma-separated `parse`; the same thing twice is kept once."""

    def parse_all(text: str) -> tuple[T, ...]:
        return tuple(dict.fromkeys(parse(item.strip()) for item in text.split(",")))

    return parse_all


def _address(text: str) -> Address:
    try:
        address = ip_address(text)
    except ValueError:
        raise ValueError(f"{clip(text)} is not an IP address") from None
    if isinstance(address, IPv6Address) and address.scope_id:
        raise ValueError(f"{clip(text)} has a zone")
    return address


def _resolver(text: str) -> Address:
    address = _address(text)
    if address.is_loopback or address.is_unspecified or address.is_multicast or address.is_link_local:
        raise ValueError(f"{address} cannot be reached through the tunnel")
    return address


def _network(text: str) -> Network:
    try:
        loose = ip_network(text, strict=False)
    except ValueError:
        raise ValueError(f"{clip(text)} is not a network") from None
    if str(loose.network_address) != str(ip_address(text.partition("/")[0])):
        raise ValueError(f"{text} has host bits set; did you mean {loose}")
    return loose


def _subnet(text: str) -> Network:
    network = _network(text)
    # Two halves of everything are everything: the widest that can be meant are 10/8 and fc00::/7.
    if network.prefixlen < (8 if network.version == 4 else 7):
        raise ValueError(f"{network} would open the kill switch")
    return network


def _spans(text: str) -> Iterator[Ports]:
    for item in text.lower().split(","):
        match = re.fullmatch(r"([0-9]+)(?:-([0-9]+))?(?:/(tcp|udp))?", item.strip())
        if not match:
            raise ValueError(f"{clip(item)} is not a port")
        first = integer(match[1], 1, 65535, "port")
        last = integer(match[2] or match[1], 1, 65535, "port")
        if last < first:
            raise ValueError(f"{first}-{last} runs backwards")
        if match[3] != "udp":
            yield Ports(first, last, "tcp")
        if match[3] != "tcp":
            yield Ports(first, last, "udp")


def _ports(text: str) -> tuple[Ports, ...]:
    return tuple(dict.fromkeys(_spans(text)))


def _host(text: str) -> Address | str:
    if ":" in text or re.fullmatch(r"[0-9.]*", text):
        return _address(text)
    labels = text.split(".")
    if len(text) > 253 or not all(re.fullmatch(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)", label) for label in labels):
        raise ValueError(f"{clip(text)} is neither a host name nor an IP address")
    return text


def _listening(text: str) -> Endpoint:
    place = parse_endpoint(text)
    # parse_endpoint fills in WARP's port where none is written.
    if isinstance(place, NamedEndpoint) or str(place.port) != text.rpartition(":")[2]:
        raise ValueError("not an address with a port")
    return place


ADDRESSES = ValueFormat(comma_separated(_resolver), "IP addresses, comma-separated")
NETWORKS = ValueFormat(comma_separated(_network), "networks, comma-separated")
SUBNETS = ValueFormat(comma_separated(_subnet), "networks, comma-separated, /8 (IPv6 /7) or smaller")
PORTS = ValueFormat(_ports, "N[-M][/tcp|/udp], comma-separated, 1 to 65535")
HOST = ValueFormat(_host, "a host name or IP address")
ENDPOINTS = ValueFormat(comma_separated(parse_endpoint), "host[:port] or [v6]:port, comma-separated")
LISTEN_ADDRESS = ValueFormat(_listening, "address:port")
HTTPS = ValueFormat(url("https"), "an https URL")
URLS = ValueFormat(comma_separated(url("https", "http")), "http or https URLs, comma-separated")


def _license(text: str) -> SecretStr:
    # Some have three groups of eight, some four: the API is the judge of that (warp-api 3).
    if not re.fullmatch(r"[A-Za-z0-9-]{8,64}", text := text.strip()):
        raise ValueError("not a licence key")
    return SecretStr(text)


def _team_token(text: str) -> SecretStr:
    found = token_in(text)
    if found is None:
        raise ValueError("no token in it")
    return SecretStr(found)


def _organisation(text: str) -> str:
    if not re.fullmatch(r"(?!-)[a-z0-9-]{1,63}(\.[a-z0-9-]{1,63})*", text := text.lower()):
        raise ValueError("not an organisation's name")
    return text


def _header(text: str) -> str:
    if not re.fullmatch(r"[!-~]{8,256}", text := text.strip()):
        raise ValueError("not 8 to 256 printable characters without blanks")
    return text


LICENSE_KEY = ValueFormat(_license, "letters, digits and dashes")
TEAM_TOKEN = ValueFormat(_team_token, "a token or a com.cloudflare.warp:// link")
ORGANISATION = ValueFormat(_organisation, "the part before .cloudflareaccess.com")
CLIENT = ValueFormat(_header, "the service token's Client ID")
CLIENT_SECRET = ValueFormat(lambda text: SecretStr(_header(text)), "the service token's Client Secret")
_JWT: Final = r"[\w-]{2,4096}\.[\w-]{2,4096}\.[\w-]{2,4096}"
_LINK: Final = re.compile(rf"[?&]token=({_JWT})(?![\w.-])")
_COOKIE: Final = re.compile(rf"\bCF_Authorization=({_JWT})(?![\w.-])")


def token_in(text: str) -> str | None:
    """Return the token in a link `com.cloudflare.warp://…?token=…`, a page with it, or a token itself."""
    if re.fullmatch(_JWT, text.strip(), re.ASCII):
        return text.strip()
    found = _LINK.search(text) or _COOKIE.search(text)
    return found[1] if found else None
