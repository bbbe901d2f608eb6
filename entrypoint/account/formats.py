"""Accounts made elsewhere: which form a file has, and what it says, read as strictly as an API's answer.

Known are WireGuard profiles (wgcf's, of other scripts, of AmneziaWG when it is plain WireGuard, wireproxy's),
account files (wgcf, warp-go, 3x-ui), what warp-reg and the API print, and other clients' WireGuard outbounds
(snippets.py). A file in another form is refused by its name.
"""

import base64
import codecs
import json
import re
import tomllib
from collections.abc import Callable

from entrypoint.account import snippets
from entrypoint.account.model import Access, Account
from entrypoint.strict_json import InvalidError, JsonValue, parse_json

__all__ = ["MAX_FILE", "profile", "read_profile", "wgcf_account"]

MAX_FILE = 65536
"""Bytes of a file that is imported."""

_LINE = re.compile(r"([A-Za-z]\w*)\s*=\s*(.*)")
_RESERVED = re.compile(r"#\s*(reserved)\s*=\s*(.*)", re.IGNORECASE)  # wg-quick knows no such name
_FLAT = re.compile(r"([a-z_0-9]+): ?(.*)")
_SEVERAL = {"address", "dns", "allowedips", "postup", "postdown", "preup", "predown"}
_JUNK = re.compile(r"jc|jmin|jmax|[si]\d|j\d|itime")
_WIREPROXY = {"socks5", "http", "tcpclienttunnel", "tcpservertunnel", "udpproxytunnel", "resolve"}


def read_profile(data: bytes) -> snippets.Imported:
    """Detect the form and read it. Raises InvalidError, which names the form and never repeats a value."""
    if len(data) > MAX_FILE:
        raise InvalidError(f"larger than {MAX_FILE} bytes")
    text = _decode(data)
    first = text.lstrip()

    def has(pattern: str) -> bool:
        return re.search(pattern, text, re.IGNORECASE | re.MULTILINE) is not None

    if has(r"^\s*\[account\]") and has(r"^\s*token\s*="):
        return _named("a warp-go account", _warp_go, text)
    if has(r"^\s*\[interface\]"):
        return _named("a WireGuard profile", _profile, text)
    if has(r"^\s*wgconfig\s*="):
        raise InvalidError("a wireproxy configuration: import the file that its WGConfig names")
    if first.startswith(("{", "[")):
        return snippets.read_json(parse_json(first.encode()))
    if re.match(r"(wireguard|wg|warp)://", first):
        return snippets.read_link(first.split()[0])
    if has(r"^\s*access_token\s*="):
        return _named("a wgcf account", _wgcf_account, text)
    if has(r"type\s*:\s*[\"']?wireguard"):
        return snippets.read_mihomo(text)
    if has(r"PRIVATE KEY-----"):
        raise InvalidError("a PEM key: it is not WireGuard's; import a profile or an account")
    lines = [_FLAT.fullmatch(line.strip()) for line in text.splitlines() if line.strip()]
    if lines and all(lines):
        fields = JsonValue({one[1]: snippets.bare(one[2]) for one in lines if one})
        return _named(
            "a registration's lines", lambda _: snippets.read_flat(fields, "a registration's lines"), text
        )
    raise InvalidError(
        "no known form: expected a WireGuard profile, an account of wgcf, warp-go or 3x-ui, or a WireGuard "
        "outbound of Xray, sing-box or mihomo"
    )


def _named(form: str, read: Callable[[str], snippets.Imported], text: str) -> snippets.Imported:
    try:
        return read(text)
    except InvalidError as error:
        raise InvalidError(f"{form}: {error}") from None


def _decode(data: bytes) -> str:
    """Return the text: Windows' editors write UTF-16, or a mark at the beginning; pages paste odd blanks."""
    encoding = "utf-8-sig"
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encoding = "utf-16"
    elif data[1:2] == b"\0":
        encoding = "utf-16-le"
    elif data[:1] == b"\0":
        encoding = "utf-16-be"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError:
        raise InvalidError("not text") from None
    text = text.replace("\N{NO-BREAK SPACE}", " ").replace("\N{ZERO WIDTH SPACE}", "")
    return re.sub(r"(?m)^\s*```.*$", "", text)


def _wgcf_account(text: str) -> snippets.Imported:
    try:
        fields = JsonValue(tomllib.loads("\n".join(map(str.strip, text.splitlines()))))
    except tomllib.TOMLDecodeError as error:
        where = re.search(r"at line \d+", str(error))
        raise InvalidError(f"not TOML{(where and f' ({where[0]})') or ''}") from None
    except RecursionError:
        raise InvalidError("not TOML: nested too deeply") from None
    return snippets.read_account(fields, "a wgcf account")


def _warp_go(text: str) -> snippets.Imported:
    pairs = [match for line in text.splitlines() if (match := _LINE.fullmatch(line.strip()))]
    fields = JsonValue({one[1].lower(): snippets.bare(one[2]) for one in reversed(pairs)})
    key = fields.member("privatekey")
    key.octets(32)
    access = Access(fields.member("device").text(), fields.member("token").text())
    return snippets.Imported("a warp-go account", key.text(), access)


def _profile(text: str) -> snippets.Imported:
    sections = _sections(text)
    interface, peer = JsonValue(sections["interface"]), JsonValue(sections["peer"])
    if peer.member("presharedkey").value is not None:
        raise InvalidError("[Peer] PresharedKey: WARP has none")
    changed = [name for name in sections["interface"] if re.fullmatch(r"[sh]\d", name)]
    for name in changed:
        plain = "0" if name[0] == "s" else name[1]
        if sections["interface"][name] != plain:
            raise InvalidError(
                f"expected {name.upper()} = {plain}: with another value AmneziaWG is not plain WireGuard, "
                "and Cloudflare's edge would not answer"
            )
    inner = snippets.by_family(str(interface.member("address").value or "").split(","))
    octets = interface.optional("reserved", snippets.read_octets) or peer.optional(
        "reserved", snippets.read_octets
    )
    client_id = base64.b64encode(octets).decode() if octets else None
    endpoint = snippets.read_endpoint(peer.member("endpoint"))
    device = snippets.device_shape(peer.member("publickey").value, endpoint, inner, client_id)
    key = interface.member("privatekey")
    key.octets(32)
    return snippets.Imported("a WireGuard profile", key.text(), device=JsonValue(device))


def _sections(text: str) -> dict[str, dict[str, str]]:
    """Read an ini file as `wg` does: names in any case, `#` comments; of other lines only known ones."""
    sections: dict[str, dict[str, str]] = {}
    current: dict[str, str] | None = None
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip()
        if not _RESERVED.fullmatch(line):
            line = "" if line.startswith(";") else line.partition("#")[0].strip()
        if not line:
            continue
        if line.startswith("["):
            name = line.strip("[]").strip().lower()
            if not line.endswith("]") or name not in ("interface", "peer", *_WIREPROXY):
                raise InvalidError(f"line {number}: expected [Interface] or [Peer]")
            if name in sections and name not in _WIREPROXY:
                raise InvalidError(f"line {number}: a second [{name.title()}]; WARP has one peer")
            current = sections[name] = {}
            continue
        match = _RESERVED.fullmatch(line) or _LINE.fullmatch(line)
        if not match or current is None:
            raise InvalidError(f"line {number}: expected {'[Interface]' if match else 'Name = value'}")
        key, value = match[1].lower(), match[2].strip()
        if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
            value = value[1:-1].strip()
        if key in current and key not in _SEVERAL and not _JUNK.fullmatch(key):
            raise InvalidError(f"line {number}: {match[1]} occurs twice")
        current[key] = f"{current[key]},{value}" if key in current else value
    for name in ("interface", "peer"):
        if name not in sections:
            raise InvalidError(f"no [{name.title()}]")
    return sections


DNS = "1.1.1.1, 1.0.0.1, 2606:4700:4700::1111, 2606:4700:4700::1001"


def profile(account: Account) -> str:
    """Return a WireGuard profile that wg-quick takes as it is; the reserved bytes are a comment in it."""
    endpoint = next(iter(account.endpoints), account.endpoint_name)
    lines = [
        "[Interface]",
        f"PrivateKey = {account.private_key}",
        f"Address = {', '.join(map(str, account.addresses))}",
        f"DNS = {DNS}",
        "MTU = 1280",
        "",
        "[Peer]",
        f"PublicKey = {account.peer_public_key}",
        "AllowedIPs = 0.0.0.0/0, ::/0",
        f"Endpoint = {endpoint}",
        "PersistentKeepalive = 25",
    ]
    if account.client_id:
        lines.append(f"# Reserved = {', '.join(map(str, account.client_id))}")
    return "\n".join(lines) + "\n"


def wgcf_account(account: Account) -> str | None:
    """Return wgcf-account.toml, None for an account without a token: wgcf could do nothing with it."""
    if account.access is None:
        return None
    members = {
        "access_token": account.access.token,
        "device_id": account.access.device_id,
        "license_key": account.license_key or "",
        "private_key": account.private_key,
    }
    # A JSON string of printable ASCII is a TOML one, too.
    return "".join(f"{name} = {json.dumps(value)}\n" for name, value in members.items())
