"""Find each variable's text in the environment: NAME_FILE, aliases and misspelled names."""

import os
import re
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


QUOTED = re.compile(r"""(["'])(.*)\1""", re.DOTALL)

FILE_SUFFIXES = ("_FILE", "_SECRETFILE")
"""Docker's, and gluetun's."""

SERVICE_LINK = re.compile(r"(tcp|udp)://[0-9a-fA-F.:\[\]]+:[0-9]+")
"""What Kubernetes writes to SHADOWSOCKS_PORT beside a service of the name shadowsocks."""

NOT_READ = {
    "WIREGUARD_PRIVATE_KEY": "write a WireGuard profile with it and name that in WARP_IMPORT_FILE",
    "WG_PRIVATE_KEY": "write a WireGuard profile with it and name that in WARP_IMPORT_FILE",
    "WIREGUARD_CONF": "name the profile in WARP_IMPORT_FILE",
}
"""Another image's names of an account: ignoring one would register a new device beside it. Name → remedy."""

IGNORED = {
    "WIREGUARD_ADDRESSES": "the account names them",
    "WIREGUARD_PUBLIC_KEY": "the account names it",
    "WIREGUARD_PRESHARED_KEY": "WARP has none",
    "WIREGUARD_ENDPOINT_IP": "use WARP_ENDPOINTS",
    "WIREGUARD_ENDPOINT_PORT": "use WARP_ENDPOINTS",
    "SHADOWSOCKS_LISTENING_ADDRESS": "use SHADOWSOCKS_PORT",
    "VPN_SERVICE_PROVIDER": "it is always WARP",
    "VPN_TYPE": "it is always WireGuard",
    "SS_SERVER_PASSWORD": "use SHADOWSOCKS_PASSWORD",
    "SERVER_PORT": "use SHADOWSOCKS_PORT",
    "BIND_PORT": "use SHADOWSOCKS_PORT",
    "GOST_ARGS": "ss-warp serves Shadowsocks only",
    "WARP_SLEEP": "ss-warp waits for as long as it takes",
}
"""Names of gluetun, warp-docker, MicroWARP and shadowsocks-libev's images → what to do instead."""

PREFIXES = ("WARP_", "SHADOWSOCKS_", "WIREGUARD_", "FIREWALL_", "DNS_", "ROUTE_", "HEALTH_")
"""Unknown names that begin like this are reported, except what Kubernetes sets for services so named."""

SERVICE_NAME = re.compile(r"\w+_(SERVICE_HOST|SERVICE_PORT\w*|PORT|PORT_[0-9]+_(TCP|UDP)\w*)")


def gather(environ: Mapping[str, str], variables: Iterable[Variable]) -> Given:
    """Find each variable's text; empty counts as unset. Reads files, changes nothing."""
    given = Given()
    names: set[str] = set()
    for variable in variables:
        own = [variable.name, *variable.aliases]
        own += [f"{name}{suffix}" for name in own for suffix in FILE_SUFFIXES]
        names.update(own)
        found = [name for name in own if environ.get(name)]
        # Two names for one value: whichever won, half of the users would be surprised.
        if len(found) > 1:
            given.bad.add(variable.name)
            given.problems.append(f"{variable.name}: set more than once: {' and '.join(found)}; keep one")
        # Not a setting: Kubernetes wrote it.
        elif found and SERVICE_LINK.fullmatch(environ[found[0]]):
            given.warnings.append(f"{found[0]} is ignored: {environ[found[0]]} is a Kubernetes service link")
        elif found:
            _add(environ[found[0]], found[0], variable, given)
    for name in sorted(set(environ) - names):
        if environ[name]:
            _judge_unknown(name, names, given)
    return given


def _add(text: str, name: str, variable: Variable, given: Given) -> None:
    plain = re.sub(f"({'|'.join(FILE_SUFFIXES)})$", "", name)
    own = (variable.name, *variable.aliases)
    if plain in variable.aliases or name.endswith("_SECRETFILE"):
        # The alias works, but only the real name is in the documentation.
        better = variable.name if name in own else f"{variable.name}_FILE"
        given.warnings.append(f"{name} is an alias: use {better} instead")
    if name not in own:
        try:
            text = _read(text.strip())
        except (OSError, ValueError) as error:
            # What is not a path may be the secret itself, put in the wrong variable.
            shown = clip(text) if text.startswith("/") or not variable.secret else "(hidden)"
            given.bad.add(variable.name)
            wrong = error.strerror if isinstance(error, OSError) else error
            given.problems.append(f"{name}: {wrong}: got {shown}; {_remedy(error, variable)}")
            return
    # Line ends of Windows and spaces are never intended; inside a password both spaces and quotation
    # marks may be, so that the marks are only removed from what cannot contain any.
    text = text.rstrip("\r\n") if variable.secret else text.strip()
    if variable.name != "SHADOWSOCKS_PASSWORD" and (quoted := QUOTED.fullmatch(text)):
        text = quoted[2].strip()
    if text:
        given.texts[variable.name] = text


def _remedy(error: Exception, variable: Variable) -> str:
    match error:
        case PermissionError():  # without DAC_OVERRIDE, root cannot read other users' files
            return "make it readable for everyone or for uid 0: chmod 644 FILE, or chown 0 FILE"
        case IsADirectoryError():
            return "Docker makes one if the file is missing: create the file, then recreate the container"
        case _:
            return f"expected a text file, e.g. /run/secrets/{variable.name.lower()}"


def _read(path: str) -> str:
    if "\0" in path:
        raise ValueError("not a path")
    # Opened without blocking: a pipe or a terminal in place of the file must not hang the start.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:  # noqa: PTH123 - opened above so that a pipe cannot block
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ValueError("not a regular file")
        # One byte more than allowed, to notice a larger file without reading all of it.
        content = file.read(LARGEST_FILE + 1)
    if len(content) > LARGEST_FILE:
        raise ValueError("larger than 64 KiB")
    try:
        text = content.decode("utf-8-sig").rstrip("\r\n")
    except UnicodeDecodeError:
        raise ValueError("not text") from None
    if not text:
        raise ValueError("empty file")
    if "\0" in text:
        raise ValueError("not text")
    return text


# A typo in the name of a kill switch's setting is a security bug, so it stops the start.
def _judge_unknown(name: str, names: set[str], given: Given) -> None:
    shown = clip(name)[1:-1]
    if (account := name.removesuffix("_SECRETFILE").removesuffix("_FILE")) in NOT_READ:
        given.problems.append(f"{name}: ss-warp reads no account from it; {NOT_READ[account]}")
    elif name in IGNORED:
        given.warnings.append(f"{name} is ignored: {IGNORED[name]}")
    elif near := get_close_matches(name.upper(), names, 1, SIMILAR):
        given.problems.append(f"{shown}: unknown name; did you mean {near[0]}?")
    elif name.startswith(PREFIXES) and not SERVICE_NAME.fullmatch(name):
        given.warnings.append(f"{shown} is ignored: unknown name")
