"""Parsers of setting values: text in, typed value out, ValueError saying what is wrong.

Errors of secret values never repeat the value.
"""

import re
from base64 import b64decode
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from ipaddress import IPv6Address, ip_address, ip_network
from pathlib import Path
from urllib.parse import urlsplit

from entrypoint.addresses import Address, Endpoint, NamedEndpoint, Network, Ports, parse_endpoint, word_for
from shadowsocks.credentials import METHODS, Method, parse_users


@dataclass(frozen=True, slots=True)
class Secret:
    """A text that str, repr and format hide."""

    _text: str

    def reveal(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return "(hidden)"


@dataclass(frozen=True, slots=True)
class ValueFormat:
    """One way to write a value; `expected` describes it to a person, `absent` is the value when unset."""

    parse: Callable[[str], object]
    expected: str
    absent: object = None


def clip(text: str) -> str:
    """Return `text` quoted for a single log line, truncated if it is long."""
    return ascii(text if len(text) <= 60 else text[:60] + "...")


def unknown_word(text: str, words: Iterable[str]) -> ValueError:
    """Return the error for a word that is not in `words`, with the closest one."""
    # The closest word, because most mistakes are typos.
    near = get_close_matches(text.lower(), list(words), 1)
    return ValueError(f"unknown; did you mean {near[0]}" if near else "unknown")


def integer(text: str, low: int, high: int, what: str = "value") -> int:
    """Parse a whole number from `low` to `high`; raise ValueError."""
    # Stricter than int(), which accepts signs, spaces, underscores and digits of other scripts.
    if not re.fullmatch(r"[0-9]{1,10}", text):
        raise ValueError(f"{what} {clip(text)} is not a number")
    if not low <= int(text) <= high:
        raise ValueError(f"{what} {int(text)} is out of range")
    return int(text)


def number(low: int, high: int, *, besides: tuple[int, ...] = ()) -> ValueFormat:
    """Return the format of a whole number from `low` to `high`, except `besides`."""

    def parse(text: str) -> int:
        value = integer(text, low, high)
        if value in besides:
            raise ValueError(f"{value} is reserved")
        return value

    return ValueFormat(parse, f"{low} to {high}")


def choice(*words: str, **also: str) -> ValueFormat:
    """Return the format of one of `words`; `also` are other programs' words for them."""
    return one_of(dict(zip(words, words, strict=True)), also)


def one_of(words: Mapping[str, object], also: Mapping[str, str] | None = None) -> ValueFormat:
    """Return the format of one of these words, each with its value."""

    def parse(text: str) -> object:
        word = (also or {}).get(text.lower(), text.lower())
        if word not in words:
            raise unknown_word(text, words)
        return words[word]

    *others, last = words
    return ValueFormat(parse, f"{', '.join(others)} or {last}")


def _switch(text: str) -> bool:
    words = {"on": True, "true": True, "1": True, "yes": True}
    words |= {"off": False, "false": False, "0": False, "no": False}
    if text.lower() not in words:
        raise ValueError("neither on nor off")
    return words[text.lower()]


_METHODS = {"chacha20-poly1305": "chacha20-ietf-poly1305"}  # Outline's and mihomo's other name


def _method(text: str) -> Method:
    text = text.lower().removeprefix("aead_").replace("_", "-")
    text = _METHODS.get(text, text)
    if text in {"none", "plain", "table"}:
        raise ValueError("a method without encryption is not allowed")
    if re.search(r"-(cfb|ctr|ofb)\d*$|^(rc4.*|x?chacha20(-ietf)?|salsa20)$", text):
        raise ValueError("stream ciphers are not allowed: their traffic can be altered and redirected")
    if text not in METHODS:
        raise unknown_word(text, METHODS)
    return METHODS[text]


def duration(low: float, high: float, expected: str) -> ValueFormat:
    """Return the format of a duration from `low` to `high` seconds; a bare number means seconds."""
    units = {"ms": 0.001, "s": 1, "m": 60, "h": 3600}
    part = r"([0-9]{1,6}(?:\.[0-9]{1,3})?)(ms|s|m|h)"

    def parse(text: str) -> float:
        written = f"{text}s" if re.fullmatch(r"[0-9.]+", text) else text
        if not re.fullmatch(f"({part})+", written):
            raise ValueError("not a duration")
        seconds = sum(float(amount) * units[unit] for amount, unit in re.findall(part, written))
        if not low <= seconds <= high:
            raise ValueError(f"{seconds:g} s is out of range")
        return seconds

    return ValueFormat(parse, expected)


def url(*schemes: str) -> Callable[[str], str]:
    """Return a parser of URLs without user, query or fragment; a trailing slash is dropped."""

    def parse(text: str) -> str:
        try:
            parts = urlsplit(text)
            # No user or password: they would end up in the log.
            good = parts.scheme in schemes and parts.hostname and parts.port != 0 and "@" not in parts.netloc
        except ValueError:
            good = False
        if not good or not re.fullmatch(r"[!-~]+", text) or set("?#\\") & set(text):
            raise ValueError(f"not an {schemes[0]} URL")
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
            raise ValueError("file not found")
        path.open("rb").close()
    except OSError as error:
        raise ValueError(error.strerror or "not readable") from None
    return path


def _interface(text: str) -> str:
    # Stricter than the kernel's dev_valid_name: some names mean something else to nft and in /proc/sys.
    if not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,14}", text) or text in {"lo", "all", "default"}:
        raise ValueError("not a valid interface name")
    return text


def _mtu(text: str) -> int | str:
    # 1280 is the minimum for IPv6 (RFC 8200 section 5).
    return integer(text, 1280, 1500) if text.lower() != "auto" else "auto"


def _reserved(text: str) -> str | bytes:
    if text.lower() in {"auto", "on", "off"}:
        return text.lower()
    if re.fullmatch(r"(0x)?[0-9A-Fa-f]{6}", text):
        return bytes.fromhex(text[-6:])
    if re.fullmatch(r"[A-Za-z0-9+/]{4}", text):  # as sing-box and the API write it
        return b64decode(text)
    numbers = [integer(number, 0, 255) for number in split_list(text.strip("[]"))]
    if len(numbers) != 3:
        raise ValueError(f"{clip(text)} is not three bytes")
    return bytes(numbers)


LONGEST_JUNK = 1200
"""Bytes; the longest that fits into a packet on any path that carries IPv6."""


def _junk(text: str) -> str:
    if text.lower() in {"auto", "on", "off"}:
        return text.lower().replace("on", "auto")
    count, *sizes = [integer(number, 1, LONGEST_JUNK) for number in split_list(text)]
    if count > 255 or len(sizes) != 2 or sizes[0] > sizes[1]:
        raise ValueError(f"{clip(text)} is not a count up to 255, a shortest and a longest")
    return f"{count},{sizes[0]},{sizes[1]}"


def _label(text: str) -> str:
    if not text.isprintable() or len(text) > 64:
        raise ValueError("not a short printable name")
    return text


def _password(text: str) -> Secret:
    if not text.isprintable():
        raise ValueError("contains control characters")
    return Secret(text)


SWITCH = ValueFormat(_switch, "on or off")
METHOD = ValueFormat(_method, ", ".join(METHODS))
PATH = ValueFormat(_path, "an absolute path")
READABLE = ValueFormat(_readable, "the absolute path of a readable file")
INTERFACE = ValueFormat(_interface, "1 to 15 letters, digits, - _ .")
MTU = ValueFormat(_mtu, "1280 to 1500, or auto")
RESERVED = ValueFormat(_reserved, "auto, on, off, or three bytes: numbers from 0 to 255, base64 or hex")
JUNK = ValueFormat(_junk, "auto, off, or COUNT,SHORTEST,LONGEST")
LABEL = ValueFormat(_label, "up to 64 printable characters")
PASSWORD = ValueFormat(_password, "printable characters")
USERS = ValueFormat(parse_users, "name[:key], comma-separated", absent=())


def split_list(text: str) -> list[str]:
    """Split at commas, spaces and line breaks; raise ValueError for a list without items."""
    items = [item for item in re.split(r"[\s,]+", text) if item]
    if not items:
        raise ValueError("empty list")
    return items


def comma_separated[T](parse: Callable[[str], T]) -> Callable[[str], tuple[T, ...]]:
    """Return a parser of a list; duplicates are dropped."""
    return lambda text: tuple(dict.fromkeys(map(parse, split_list(text))))


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
    if word := word_for(address):
        raise ValueError(f"{address} is {word} and cannot be reached through the tunnel")
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
    # Two halves of everything are everything; the widest sensible networks are 10/8 and fc00::/7.
    if network.prefixlen < (8 if network.version == 4 else 7):
        raise ValueError(f"{network} would disable the kill switch")
    return network


def _spans(text: str) -> Iterator[Ports]:
    for item in split_list(text.lower()):
        match = re.fullmatch(r"([0-9]+)(?:[-:]([0-9]+))?(?:/(tcp|udp))?", item)
        if not match:
            raise ValueError(f"{clip(item)} is not a port")
        first = integer(match[1], 1, 65535, "port")
        last = integer(match[2] or match[1], 1, 65535, "port")
        if last < first:
            raise ValueError(f"{first}-{last} is a reversed range")
        # Without a suffix a port means both.
        if match[3] != "udp":
            yield Ports(first, last, "tcp")
        if match[3] != "tcp":
            yield Ports(first, last, "udp")


def _ports(text: str) -> tuple[Ports, ...]:
    return tuple(dict.fromkeys(_spans(text)))


def _host(text: str) -> Address | str:
    if bracketed := re.fullmatch(r"\[(.+)\]", text):
        return _address(bracketed[1])
    if re.fullmatch(r"[^:]+:[0-9]+", text):
        raise ValueError("contains a port, which belongs in SHADOWSOCKS_PUBLIC_PORT")
    if ":" in text or re.fullmatch(r"[0-9.]*", text):
        return _address(text)
    labels = text.split(".")
    if len(text) > 253 or not all(re.fullmatch(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)", label) for label in labels):
        raise ValueError(f"{clip(text)} is neither a host name nor an IP address")
    return text


# What users write instead of an address.
_HOSTS = {"": "0.0.0.0", "*": "0.0.0.0", "localhost": "127.0.0.1"}  # noqa: S104


def _listening(text: str) -> Endpoint:
    host, _, port = text.rpartition(":")
    text = f"{_HOSTS.get(host, host)}:{port}"
    place = parse_endpoint(text)
    # parse_endpoint supplies WARP's port if none is given.
    if isinstance(place, NamedEndpoint) or str(place.port) != text.rpartition(":")[2]:
        raise ValueError("not an address with a port")
    return place


def _web_url(text: str) -> str:
    try:
        parts = urlsplit(text)
        good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        good = False
    if not good or not text.isprintable() or " " in text:
        raise ValueError("not an http or https URL")
    return text


ADDRESSES = ValueFormat(comma_separated(_resolver), "IP addresses, comma-separated", absent=())
NETWORKS = ValueFormat(comma_separated(_network), "networks, comma-separated", absent=())
SUBNETS = ValueFormat(
    comma_separated(_subnet), "networks, comma-separated, /8 (IPv6 /7) or smaller", absent=()
)
PORTS = ValueFormat(_ports, "N[-M][/tcp|/udp], comma-separated, 1 to 65535", absent=())
HOST = ValueFormat(_host, "a host name or IP address")
ENDPOINTS = ValueFormat(
    comma_separated(parse_endpoint), "host[:port] or [v6]:port, comma-separated", absent=()
)
LISTEN_ADDRESS = ValueFormat(_listening, "address:port")
HTTPS = ValueFormat(url("https"), "an https URL")
WEBHOOK = ValueFormat(lambda text: Secret(_web_url(text)), "an http or https URL")
URLS = ValueFormat(comma_separated(url("https", "http")), "http or https URLs, comma-separated", absent=())


def _license(text: str) -> Secret:
    # Keys in use have three or four groups of eight; only the API knows which exist.
    if not re.fullmatch(r"[A-Za-z0-9-]{8,64}", text := text.strip()):
        raise ValueError("not a licence key")
    return Secret(text)


def _team_token(text: str) -> Secret:
    found = token_in(text)
    if found is None:
        raise ValueError("contains no token")
    return Secret(found)


def _organisation(text: str) -> str:
    text = text.removeprefix("https://").partition("/")[0]
    if not re.fullmatch(r"(?!-)[a-z0-9-]{1,63}(\.[a-z0-9-]{1,63})*", text := text.lower()):
        raise ValueError("not an organisation name")
    return text


def _header(text: str) -> str:
    text = re.sub(r"(?i)^\s*CF-Access-Client-(Id|Secret):", "", text)
    if not re.fullmatch(r"[!-~]{8,256}", text := text.strip()):
        raise ValueError("not 8 to 256 printable characters without spaces")
    return text


LICENSE_KEY = ValueFormat(_license, "letters, digits and dashes")
TEAM_TOKEN = ValueFormat(_team_token, "a token or a com.cloudflare.warp:// link")
ORGANISATION = ValueFormat(_organisation, "the part before .cloudflareaccess.com")
CLIENT = ValueFormat(_header, "the service token's Client ID")
CLIENT_SECRET = ValueFormat(lambda text: Secret(_header(text)), "the service token's Client Secret")
_JWT = r"[\w-]{2,4096}\.[\w-]{2,4096}\.[\w-]{2,4096}"
_LINK = re.compile(rf"[?&]token=({_JWT})(?![\w.-])")
_COOKIE = re.compile(rf"\bCF_Authorization=({_JWT})(?![\w.-])")


def token_in(text: str) -> str | None:
    """Return the token: given alone, in a `com.cloudflare.warp://…?token=…` link, or in a page's source."""
    text = text.strip().removeprefix("Bearer ").strip()
    if re.fullmatch(_JWT, text, re.ASCII):
        return text
    found = _LINK.search(text) or _COOKIE.search(text)
    return found[1] if found else None
