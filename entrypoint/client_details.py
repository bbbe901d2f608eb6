"""What clients need to connect: keys and public address on the volume, and the block that shows them.

Light: `ss-warp link` runs beside the supervisor in a small container.
"""

import logging
from dataclasses import dataclass, replace
from ipaddress import ip_address

from entrypoint.addresses import Address
from entrypoint.errors import Error, StateError
from entrypoint.linux import state_dir
from entrypoint.linux.state_dir import PUBLIC_ADDRESS_FILE, SHADOWSOCKS_FILE
from entrypoint.log import hide, print_block
from entrypoint.settings import Settings
from shadowsocks.credentials import Credentials, SavedKeys, credentials
from shadowsocks.links import entries, link, qr

SHOW_LINK = "docker compose exec ss-warp ss-warp link"

log = logging.getLogger("ss-warp")


@dataclass(frozen=True, slots=True)
class ClientSecrets:
    """What clients need besides host and port; `shown`: the first-run block was printed."""

    credentials: Credentials
    shown: bool


def load_or_generate(settings: Settings) -> ClientSecrets:
    """Return method, password and users; save what is generated, and log it if clients must change.

    Raises StateError if shadowsocks.json is not ours, BusyError if the disk is full.
    """
    saved = read_keys(settings)
    found, now = with_generated(settings, saved or SavedKeys())
    if saved is None or now.texts != saved.texts:
        state_dir.replace(settings.account.state_dir / SHADOWSOCKS_FILE, now.to_json())
    hide(found.password, *(user.key for user in found.users))
    if saved and (fresh := now.texts - saved.texts):
        names = ["password"] if found.password in fresh else []
        names += [f"key for {user.name}" for user in found.users if user.key in fresh]
        log.warning("generated a new %s (%s); to show it: %s", ", ".join(names), found.method, SHOW_LINK)
    return ClientSecrets(found, now.shown)


def read_keys(settings: Settings) -> SavedKeys | None:
    """Return the content of shadowsocks.json, None if it does not exist. Raises StateError."""
    path = settings.account.state_dir / SHADOWSOCKS_FILE
    content = state_dir.read(path)
    try:
        return SavedKeys.from_json(content) if content is not None else None
    except ValueError as error:
        raise StateError(f"{path}: {error}", "restore it from a backup, or delete it for new keys") from error


def with_generated(settings: Settings, saved: SavedKeys) -> tuple[Credentials, SavedKeys]:
    """Return what clients need, and what to save of it."""
    wanted = settings.shadowsocks
    password = wanted.password.reveal() if wanted.password else None
    return credentials(wanted.method, password, wanted.users, saved)


def saved_public_address(settings: Settings) -> Address | None:
    """Return the public address that an earlier start detected."""
    content = state_dir.read(settings.account.state_dir / PUBLIC_ADDRESS_FILE) or b""
    try:
        return ip_address(content.decode("ascii", "replace").strip())
    except ValueError:
        return None


def save_public_address(settings: Settings, address: Address) -> None:
    state_dir.replace(settings.account.state_dir / PUBLIC_ADDRESS_FILE, f"{address}\n".encode())


TERMS = "https://www.cloudflare.com/application/terms/"


def show(host: Address | str | None, settings: Settings, credentials: Credentials) -> None:
    """Print the block of the first run, unless PRINT_LINK=off; record it, so that later starts do not."""
    if settings.logs.print_link and host is None:
        what = "the server's public address is unknown: set SHADOWSOCKS_PUBLIC_HOST, then run %s"
        log.warning(what, SHOW_LINK)
        return
    if settings.logs.print_link and host:
        print_block(first_run(host, settings, credentials), settings.logs.format)
    try:
        saved = read_keys(settings) or SavedKeys()
        path = settings.account.state_dir / SHADOWSOCKS_FILE
        state_dir.replace(path, replace(saved, shown=True).to_json())
    except Error as error:
        log.warning("cannot save that the link was shown, the next start will show it again: %s", error)


def first_run(host: Address | str, settings: Settings, credentials: Credentials) -> str:
    """Return the framed block of the first run: what clients need, as fields, links and QR codes."""
    wanted = settings.shadowsocks
    rule = "─" * 72
    lines = [rule, "Connect to your server with these details:", ""]
    for entry in entries(host, wanted.public_port or wanted.port, credentials, wanted.udp):
        fields = {
            "name": entry.name,
            "host": entry.host,
            "port": entry.port,
            "method": entry.method,
            "password": entry.password,
        }
        lines += [f"  {name:9} {value}" for name, value in fields.items()]
        lines += ["", f"  {link(entry)}", ""]
        if link(entry, base64=True) != link(entry):
            lines += ["  for Shadowsocks for Android and others that do not read this one:", ""]
            lines += [f"  {link(entry, base64=True)}", ""]
        lines += [qr(link(entry)), ""]
    lines += [f"Registering accepts Cloudflare's terms: {TERMS}", rule]
    return "\n".join(lines)
