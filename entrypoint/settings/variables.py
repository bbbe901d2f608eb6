"""Settings of the account and the tunnel."""

from pathlib import Path
from typing import Literal

from pydantic import SecretStr

from entrypoint.addresses import Address, Endpoint, Family, NamedEndpoint, Network, Ports
from entrypoint.settings.environment import Group, variable
from entrypoint.settings.values import (
    ADDRESSES,
    CLIENT,
    CLIENT_SECRET,
    ENDPOINTS,
    HOST,
    HTTPS,
    INTERFACE,
    LABEL,
    LICENSE_KEY,
    LISTEN_ADDRESS,
    METHOD,
    MTU,
    NETWORKS,
    ORGANISATION,
    PASSWORD,
    PATH,
    PORTS,
    READABLE,
    RESERVED,
    SUBNETS,
    SWITCH,
    TEAM_TOKEN,
    URLS,
    USERS,
    choice,
    duration,
    number,
    one_of,
)
from shadowsocks.credentials import Method, RequestedUser


class Account(Group):
    """Account."""

    license_key: SecretStr | None = variable(
        "WARP_LICENSE_KEY",
        LICENSE_KEY,
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
        one_of({"dual": (4, 6), "4": (4,), "6": (6,)}),
        "dual",
        "Address families that the tunnel carries; the other one is refused",
        "4",
    )
    direct: Family | None = variable(
        "DIRECT_IP_VERSION",
        one_of({"none": None, "4": 4, "6": 6}),
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


class Routing(Group):
    """Routing."""

    network: Literal["auto", "own", "host"] = variable(
        "NETWORK",
        choice("auto", "own", "host"),
        "auto",
        "Whose network namespace this is: the container's own or the host's",
        "own",
    )
    mode: Literal["full", "proxy"] | None = variable(
        "ROUTE_MODE",
        choice("full", "proxy"),
        None,
        "full: all that starts in this namespace uses the tunnel; proxy: Shadowsocks alone",
        "proxy",
        shown="full in own, proxy in host",
    )
    # Two rules stand before it, two after; 32764 is the last row of mode full.
    rule_priority: int | None = variable(
        "ROUTE_RULE_PRIORITY",
        number(3, 32761),
        None,
        "Priority of the rules that keep answers on the uplink; their neighbours follow",
        "18",
        shown="18 in own, 32759 in host",
    )
    table: int = variable(
        "ROUTE_TABLE",
        number(1, 4294967294, besides=(253, 254, 255)),
        "51820",
        "Routing table of the tunnel",
        "51820",
    )


class Firewall(Group):
    """Firewall."""

    on: bool = variable(
        "FIREWALL", SWITCH, "on", "The kill switch: what should use the tunnel never leaves without it", "on"
    )
    input_ports: tuple[Ports, ...] = variable(
        "FIREWALL_INPUT_PORTS",
        PORTS,
        None,
        "Ports of other services here that may be reached by the uplink",
        "8080/tcp,5000-5010/udp",
        shown="none",
    )
    outbound_subnets: tuple[Network, ...] = variable(
        "FIREWALL_OUTBOUND_SUBNETS",
        SUBNETS,
        None,
        "Networks that are reached by the uplink instead of the tunnel",
        "192.168.0.0/16",
        shown="none",
    )


class Dns(Group):
    """DNS."""

    addresses: tuple[Address, ...] = variable(
        "DNS_ADDRESSES",
        ADDRESSES,
        "1.1.1.1,1.0.0.1,2606:4700:4700::1111,2606:4700:4700::1001",
        "Resolvers, asked through the tunnel",
        "9.9.9.9,2620:fe::fe",
    )


class Shadowsocks(Group):
    """Shadowsocks."""

    on: bool = variable(
        "SHADOWSOCKS", SWITCH, "on", "The Shadowsocks server; off leaves the tunnel alone", "on"
    )
    port: int = variable(
        "SHADOWSOCKS_PORT", number(1, 65535), "8388", "Port it listens on, TCP and UDP", "8388"
    )
    method: Method = variable(
        "SHADOWSOCKS_METHOD",
        METHOD,
        "2022-blake3-aes-128-gcm",
        "Encryption method",
        "chacha20-ietf-poly1305",
        aliases=("SHADOWSOCKS_CIPHER",),
    )
    password: SecretStr | None = variable(
        "SHADOWSOCKS_PASSWORD",
        PASSWORD,
        None,
        "Password; with a 2022 method base64 of 16 or 32 bytes",
        "the output of `openssl rand -base64 16`",
        shown="generated once, kept",
        secret=True,
    )
    users: tuple[RequestedUser, ...] = variable(
        "SHADOWSOCKS_USERS",
        USERS,
        None,
        "Several users, each with a key; a key left out is generated once and kept",
        "alice,bob",
        shown="none",
        secret=True,
    )
    udp: bool = variable("SHADOWSOCKS_UDP", SWITCH, "on", "UDP, too", "off")
    allowed_cidrs: tuple[Network, ...] = variable(
        "SHADOWSOCKS_ALLOWED_CIDRS",
        NETWORKS,
        None,
        "Networks that clients may come from",
        "203.0.113.0/24",
        shown="any",
    )
    public_host: Address | str | None = variable(
        "SHADOWSOCKS_PUBLIC_HOST",
        HOST,
        None,
        "Host that clients connect to, for the link",
        "vps.example.com",
        shown="detected",
    )
    public_port: int | None = variable(
        "SHADOWSOCKS_PUBLIC_PORT",
        number(1, 65535),
        None,
        "Port that clients connect to, for the link",
        "443",
        shown="SHADOWSOCKS_PORT",
    )


class Health(Group):
    """Health."""

    interval: float = variable(
        "HEALTH_INTERVAL",
        duration(1, 3600, "1s to 1h"),
        "10s",
        "How often a request is sent through the tunnel",
        "10s",
    )
    trace_urls: tuple[str, ...] = variable(
        "HEALTH_TRACE_URLS",
        URLS,
        "https://1.1.1.1/cdn-cgi/trace,https://[2606:4700:4700::1111]/cdn-cgi/trace",
        "Pages that tell whether the request came by WARP",
        "https://www.cloudflare.com/cdn-cgi/trace",
    )
    ca_file: Path | None = variable(
        "HEALTH_CA_FILE",
        READABLE,
        None,
        "CA certificates (PEM) that sign those pages'",
        "/run/secrets/ca.pem",
        shown="the system's",
    )
    server_address: Endpoint = variable(
        "HEALTH_SERVER_ADDRESS",
        LISTEN_ADDRESS,
        "127.0.0.1:9999",
        "Where /healthz, /status and /metrics are served",
        "127.0.0.1:9999",
    )
    exit_on_fatal: bool = variable(
        "EXIT_ON_FATAL",
        SWITCH,
        "off",
        "End with code 69 when every repair failed, instead of trying on",
        "on",
    )


class Logs(Group):
    """Logs."""

    level: Literal["debug", "info", "warning", "error"] = variable(
        "LOG_LEVEL", choice("debug", "info", "warning", "error"), "info", "What is worth a line", "debug"
    )
    format: Literal["text", "json"] = variable(
        "LOG_FORMAT", choice("text", "json"), "text", "How a line is written", "json"
    )
    print_link: bool = variable("PRINT_LINK", SWITCH, "on", "Print link and QR code on the first run", "off")
