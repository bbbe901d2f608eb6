"""Settings of the account and the tunnel."""

from pathlib import Path
from typing import Literal

from pydantic import SecretStr

from entrypoint.network.plan import Family
from entrypoint.settings.addresses import ENDPOINTS, HTTPS
from entrypoint.settings.credentials import CLIENT, CLIENT_SECRET, LICENSE, ORGANISATION, TEAM_TOKEN
from entrypoint.settings.forms import (
    INTERFACE,
    LABEL,
    MTU,
    PATH,
    READABLE,
    RESERVED,
    SWITCH,
    choice,
    duration,
    meaning,
)
from entrypoint.settings.variable import Group, variable
from entrypoint.warp.endpoints import Endpoint, NamedEndpoint


class Account(Group):
    """Account."""

    license_key: SecretStr | None = variable(
        "WARP_LICENSE_KEY",
        LICENSE,
        None,
        "WARP+ licence key from the app; without or when it is refused the account is free",
        "Ab12Cd34-Ef56Gh78-Ij90Kl12",
        shown="none",
        secret=True,
    )
    team_token: SecretStr | None = variable(
        "WARP_TEAM_TOKEN",
        TEAM_TOKEN,
        None,
        "Zero Trust: the token, or the whole link, from your organisation's page; see docs/teams.md",
        "com.cloudflare.warp://acme.cloudflareaccess.com/auth?token=eyJ0.eyJl.c2ln",
        shown="none",
        secret=True,
    )
    org: str | None = variable(
        "WARP_ORG",
        ORGANISATION,
        None,
        "Zero Trust with a service token: the organisation's name",
        "acme",
        shown="none",
    )
    auth_client_id: str | None = variable(
        "WARP_AUTH_CLIENT_ID",
        CLIENT,
        None,
        "Zero Trust: the service token's id",
        "0123456789abcdef.access",
        shown="none",
    )
    auth_client_secret: SecretStr | None = variable(
        "WARP_AUTH_CLIENT_SECRET",
        CLIENT_SECRET,
        None,
        "Zero Trust: the service token's secret",
        "0123456789abcdef0123456789abcdef",
        shown="none",
        secret=True,
    )
    import_file: Path | None = variable(
        "WARP_IMPORT_FILE",
        PATH,
        None,
        "An account made elsewhere, taken over at the first start: wgcf's, a WireGuard profile, JSON",
        "/run/secrets/wgcf-account.toml",
        shown="none",
    )
    unregister_on_exit: bool = variable(
        "WARP_UNREGISTER_ON_EXIT",
        SWITCH,
        "off",
        "Unregister the device when the container stops; the next start registers another",
        "on",
    )
    device_name: str | None = variable(
        "WARP_DEVICE_NAME", LABEL, None, "Name of this device in the account", "vps-1", shown="host name"
    )
    state_dir: Path = variable(
        "WARP_STATE_DIR",
        PATH,
        "/var/lib/ss-warp",
        "Directory of all that is kept: account, passwords, numbers taken",
        "/var/lib/ss-warp",
    )
    api_url: str = variable(
        "WARP_API_URL",
        HTTPS,
        "https://api.cloudflareclient.com",
        "The registration API, without the version path",
        "https://api.cloudflareclient.com",
    )
    api_ca_file: Path | None = variable(
        "WARP_API_CA_FILE",
        READABLE,
        None,
        "CA certificates (PEM) that sign the API's",
        "/run/secrets/ca.pem",
        shown="the system's",
    )


class Tunnel(Group):
    """Tunnel."""

    implementation: Literal["auto", "kernel", "userspace"] = variable(
        "WIREGUARD_IMPLEMENTATION",
        choice("auto", "kernel", "userspace"),
        "auto",
        "Who carries WireGuard's packets; auto prefers the kernel",
        "userspace",
    )
    interface: str = variable(
        "WIREGUARD_INTERFACE", INTERFACE, "wg0", "Name of the tunnel's interface", "wg0"
    )
    mtu: int | Literal["auto"] = variable(
        "WIREGUARD_MTU",
        MTU,
        "1280",
        "Largest packet in the tunnel, bytes; auto: the uplink's less 80, from 1280 to 1420",
        "auto",
    )
    keepalive: float = variable(
        "WIREGUARD_PERSISTENT_KEEPALIVE_INTERVAL",
        duration(0, 65535, "0s to 65535s"),
        "25s",
        "How often an idle tunnel sends something; 0s is never",
        "25s",
    )
    endpoints: tuple[Endpoint | NamedEndpoint, ...] = variable(
        "WARP_ENDPOINTS",
        ENDPOINTS,
        None,
        "Where WARP's edge is asked, in this order; 2408 without a port",
        "162.159.192.1:2408,[2606:4700:d0::a29f:c001]:500",
        shown="from the API; ports 2408, 500, 1701, 4500",
    )
    families: tuple[Family, ...] = variable(
        "WARP_IP_VERSION",
        meaning({"dual": (4, 6), "4": (4,), "6": (6,)}),
        "dual",
        "Address families that the tunnel carries; the other one is refused",
        "4",
    )
    direct: Family | None = variable(
        "DIRECT_IP_VERSION",
        meaning({"none": None, "4": 4, "6": 6}),
        "none",
        "A family that the tunnel does not carry and that may leave directly instead, Shadowsocks too",
        "none",
    )
    reserved: Literal["auto", "on", "off"] | bytes = variable(
        "WARP_RESERVED",
        RESERVED,
        "auto",
        "Reserved bytes of each WireGuard message: the account's, none, or these; auto: if it has any",
        "193,29,7",
    )
