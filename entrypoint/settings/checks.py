"""Checks of settings against each other; each runs only if all the variables it names are valid."""

from collections.abc import Callable, Iterator

from entrypoint.settings.variables import Settings
from shadowsocks.credentials import password_problem


def _password(settings: Settings) -> Iterator[str]:
    shadowsocks = settings.shadowsocks
    if shadowsocks.password:
        wrong = password_problem(shadowsocks.method, shadowsocks.password.reveal())
        # The usual reason: compose keeps the quotation marks of `.env` in some versions.
        if wrong and shadowsocks.password.reveal()[0] in "\"'":
            wrong += " without quotation marks"
        if wrong:
            yield f"SHADOWSOCKS_PASSWORD: {wrong}: got (hidden); expected {_expected(settings)}"


def _users(settings: Settings) -> Iterator[str]:
    shadowsocks = settings.shadowsocks
    if shadowsocks.users and not shadowsocks.method.several_users:
        yield (
            f"SHADOWSOCKS_USERS: only the 2022 AES methods take several users: got {shadowsocks.method} in "
            "SHADOWSOCKS_METHOD; expected e.g. 2022-blake3-aes-128-gcm"
        )
        return
    for user in shadowsocks.users:
        wrong = password_problem(shadowsocks.method, user.key) if user.key else ""
        if wrong:
            yield f"SHADOWSOCKS_USERS: {user.name}: {wrong}: got (hidden); expected {_expected(settings)}"


def _expected(settings: Settings) -> str:
    method = settings.shadowsocks.method
    if method.edition == 2022:
        return f"base64 of {method.key} bytes, e.g. the output of `openssl rand -base64 {method.key}`"
    return "a long random text, e.g. the output of `openssl rand -base64 16`"


def _ports(settings: Settings) -> Iterator[str]:
    port = settings.shadowsocks.port
    if settings.shadowsocks.on and settings.health.server_address.port == port:
        yield (
            f"HEALTH_SERVER_ADDRESS: same port as SHADOWSOCKS_PORT: got {port} for both; "
            "expected a different one, e.g. 127.0.0.1:9999"
        )


# A family cannot both use the tunnel and bypass it.
def _families(settings: Settings) -> Iterator[str]:
    carried, direct = settings.tunnel.families, settings.tunnel.direct
    # Refused rather than guessed: one reading leaks, the other ignores a setting.
    if direct in carried:
        yield (
            f"DIRECT_IP_VERSION: IPv{direct} cannot bypass the tunnel that carries it: got {direct}; "
            f"expected none, or WARP_IP_VERSION={10 - direct}"
        )
    if not any(address.version in carried for address in settings.dns.addresses):
        yield f"DNS_ADDRESSES: contains no IPv{carried[0]} address, as WARP_IP_VERSION={carried[0]} requires"


def _junk(settings: Settings) -> Iterator[str]:
    tunnel = settings.tunnel
    if tunnel.implementation == "kernel" and tunnel.junk not in {"auto", "off"}:
        yield (
            f"WARP_JUNK: kernel WireGuard sends no junk: got {tunnel.junk}; "
            "expected WIREGUARD_IMPLEMENTATION=auto or userspace"
        )


_SERVICE = ("WARP_ORG", "WARP_AUTH_CLIENT_ID", "WARP_AUTH_CLIENT_SECRET")


def _team(settings: Settings) -> Iterator[str]:
    account = settings.account
    given = (account.org, account.auth_client_id, account.auth_client_secret)
    missing = [name for name, value in zip(_SERVICE, given, strict=True) if not value]
    service = len(missing) < len(_SERVICE)
    if service and missing:
        yield f"{missing[0]}: missing: a service token needs all of {', '.join(_SERVICE)}"
    kinds = {
        "WARP_TEAM_TOKEN": account.team_token,
        _SERVICE[0]: service,
        "WARP_IMPORT_FILE": account.import_file,
    }
    several = [name for name, value in kinds.items() if value]
    # Which account wins must not depend on an order that no one knows.
    if len(several) > 1:
        yield f"{several[0]}: more than one source for the account: {', '.join(several)}; keep one"
    if account.license_key and (service or account.team_token):
        yield "WARP_LICENSE_KEY: a Zero Trust account takes no licence; keep one of the two"


def advice(settings: Settings) -> Iterator[str]:
    """Yield warnings for valid settings that do not do what they seem to."""
    if direct := settings.tunnel.direct:
        yield f"DIRECT_IP_VERSION={direct}: IPv{direct} bypasses the tunnel, with this server's own address"
    served = settings.health.server_address
    opened = any(
        ports.transport == "tcp" and ports.first <= served.port <= ports.last
        for ports in settings.firewall.input_ports
    )
    if not served.address.is_loopback and settings.routing.network == "own" and not opened:
        yield (
            f"HEALTH_SERVER_ADDRESS={served}: the firewall blocks it for others; "
            f"to open it, add {served.port}/tcp to FIREWALL_INPUT_PORTS"
        )


CHECKS: tuple[tuple[tuple[str, ...], Callable[[Settings], Iterator[str]]], ...] = (
    (("SHADOWSOCKS_METHOD", "SHADOWSOCKS_PASSWORD"), _password),
    (("SHADOWSOCKS_METHOD", "SHADOWSOCKS_USERS"), _users),
    (("WARP_TEAM_TOKEN", "WARP_IMPORT_FILE", "WARP_LICENSE_KEY", *_SERVICE), _team),
    (("WARP_IP_VERSION", "DIRECT_IP_VERSION", "DNS_ADDRESSES"), _families),
    (("WARP_JUNK", "WIREGUARD_IMPLEMENTATION"), _junk),
    (("SHADOWSOCKS_PORT", "HEALTH_SERVER_ADDRESS", "SHADOWSOCKS"), _ports),
)
