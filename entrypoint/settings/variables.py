"""Every setting: one declaration per variable, one class per group."""

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_type_hints

from entrypoint.addresses import Address, Endpoint, Family, NamedEndpoint, Network, Ports
from entrypoint.settings import values as form
from entrypoint.settings.values import Secret, ValueFormat, choice, duration, number, one_of
from shadowsocks.credentials import Method, RequestedUser


@dataclass(frozen=True, slots=True)
class Variable:
    """An environment variable as declared.

    `default` is written the way a user would write it, so that all values are parsed by `form`;
    `default_text` describes a default that is not a fixed text.
    """

    name: str
    form: ValueFormat
    default: str | None
    example: str
    text: str
    default_text: str = ""
    secret: bool = False
    aliases: tuple[str, ...] = ()

    def parse(self, text: str | None) -> object:
        """Return the value of `text`, or of the default for None; raise ValueError."""
        text = self.default if text is None else text
        return self.form.absent if text is None else self.form.parse(text)


def variable(
    name: str,
    form: ValueFormat,
    default: str | None,
    example: str,
    text: str,
    default_text: str = "",
    **more: Any,
) -> Any:
    """Declare a field; `default_text` "none" is implied where the default is None."""
    default_text = default_text or ("" if default else "none")
    return field(metadata={"variable": Variable(name, form, default, example, text, default_text, **more)})


# A variable takes two or three lines, which the formatter would make nine.
# fmt: off
@dataclass(frozen=True, slots=True)
class Account:
    """Account."""

    license_key: Secret | None = variable(
        "WARP_LICENSE_KEY", form.LICENSE_KEY, None, "Ab12Cd34-Ef56Gh78-Ij90Kl12",
        "WARP+ licence key from the app; the account is free if this is unset or refused", secret=True,
        aliases=("WARP_LICENSE", "WARP_PLUS_KEY", "WGCF_LICENSE_KEY"))
    team_token: Secret | None = variable(
        "WARP_TEAM_TOKEN", form.TEAM_TOKEN, None,
        "com.cloudflare.warp://acme.cloudflareaccess.com/auth?token=eyJ0.eyJl.c2ln",
        "Zero Trust: the token, or the whole link, from your organisation's page; see docs/teams.md",
        secret=True, aliases=("TEAMS_TOKEN", "WARP_JWT"))
    org: str | None = variable(
        "WARP_ORG", form.ORGANISATION, None, "acme", "Zero Trust with a service token: organisation name")
    auth_client_id: str | None = variable(
        "WARP_AUTH_CLIENT_ID", form.CLIENT, None, "0123456789abcdef.access",
        "Zero Trust: client ID of the service token")
    auth_client_secret: Secret | None = variable(
        "WARP_AUTH_CLIENT_SECRET", form.CLIENT_SECRET, None, "0123456789abcdef0123456789abcdef",
        "Zero Trust: client secret of the service token", secret=True)
    import_file: Path | None = variable(
        "WARP_IMPORT_FILE", form.PATH, None, "/run/secrets/wgcf-account.toml",
        "Existing account to take over on the first start: a wgcf account, a WireGuard profile or JSON")
    unregister_on_exit: bool = variable(
        "WARP_UNREGISTER_ON_EXIT", form.SWITCH, "off", "on",
        "Unregister the device when the container stops; the next start registers a new one")
    device_name: str | None = variable(
        "WARP_DEVICE_NAME", form.LABEL, None, "vps-1", "Name of this device in the account", "host name")
    state_dir: Path = variable(
        "WARP_STATE_DIR", form.PATH, "/var/lib/ss-warp", "/var/lib/ss-warp",
        "State directory: the account, generated passwords and the network objects in use")
    api_url: str = variable(
        "WARP_API_URL", form.HTTPS, "https://api.cloudflareclient.com", "https://api.cloudflareclient.com",
        "Registration API, without the version path")
    api_ca_file: Path | None = variable(
        "WARP_API_CA_FILE", form.READABLE, None, "/run/secrets/ca.pem",
        "CA certificates (PEM) that verify the API", "the system's")


@dataclass(frozen=True, slots=True)
class Tunnel:
    """Tunnel."""

    implementation: Literal["auto", "kernel", "userspace"] = variable(
        "WIREGUARD_IMPLEMENTATION", choice("auto", "kernel", "userspace", kernelspace="kernel"), "auto",
        "userspace", "WireGuard implementation; auto prefers the kernel")
    interface: str = variable(
        "WIREGUARD_INTERFACE", form.INTERFACE, "wg0", "wg0", "Name of the tunnel interface")
    mtu: int | Literal["auto"] = variable(
        "WIREGUARD_MTU", form.MTU, "1280", "auto",
        "Largest packet in the tunnel, in bytes; auto: 80 less than the uplink's, between 1280 and 1420")
    keepalive: float = variable(
        "WIREGUARD_PERSISTENT_KEEPALIVE_INTERVAL", duration(0, 65535, "0s to 65535s"), "25s", "25s",
        "How often an idle tunnel sends a keepalive; 0s: never")
    endpoints: tuple[Endpoint | NamedEndpoint, ...] = variable(
        "WARP_ENDPOINTS", form.ENDPOINTS, None, "162.159.192.1:2408,[2606:4700:d0::a29f:c001]:500",
        "WARP endpoints to try, in order; the port defaults to 2408",
        "from the API; ports 2408, 500, 1701, 4500", aliases=("WARP_ENDPOINT", "ENDPOINT_IP"))
    families: tuple[Family, ...] = variable(
        "WARP_IP_VERSION", one_of({"dual": (4, 6), "4": (4,), "6": (6,)}), "dual", "4",
        "Address families that the tunnel carries; the other one is blocked")
    direct: Family | None = variable(
        "DIRECT_IP_VERSION", one_of({"none": None, "4": 4, "6": 6}), "none", "none",
        "Address family that bypasses the tunnel and leaves directly, Shadowsocks included")
    reserved: Literal["auto", "on", "off"] | bytes = variable(
        "WARP_RESERVED", form.RESERVED, "auto", "193,29,7",
        "Reserved bytes in each WireGuard message: the account's, none, or these; auto: the account's, or "
        "none once every port was silent while DNS outside the tunnel answered")
    junk: str = variable(
        "WARP_JUNK", form.JUNK, "auto", "4,40,70",
        "Random datagrams before each handshake, only in userspace: how many, and their sizes; auto: once "
        "every port was silent while DNS outside the tunnel answered")


@dataclass(frozen=True, slots=True)
class Routing:
    """Routing."""

    network: Literal["auto", "own", "host"] = variable(
        "NETWORK", choice("auto", "own", "host"), "auto", "own",
        "Network namespace that ss-warp runs in: the container's own or the host's")
    mode: Literal["full", "proxy"] | None = variable(
        "ROUTE_MODE", choice("full", "proxy"), None, "proxy",
        "full: everything started in this namespace uses the tunnel; proxy: only Shadowsocks does",
        "full in own, proxy in host")
    # Two rules come before it and two after; 32764 is the last rule of mode full.
    rule_priority: int | None = variable(
        "ROUTE_RULE_PRIORITY", number(3, 32761), None, "18",
        "Priority of the rules that keep replies on the uplink; the other rules are placed around it",
        "18 in own, 32759 in host")
    table: int = variable(
        "ROUTE_TABLE", number(1, 4294967294, besides=(253, 254, 255)), "51820", "51820",
        "Routing table of the tunnel")


@dataclass(frozen=True, slots=True)
class Firewall:
    """Firewall."""

    on: bool = variable(
        "FIREWALL", form.SWITCH, "on", "on", "Kill switch: traffic for the tunnel never leaves without it")
    input_ports: tuple[Ports, ...] = variable(
        "FIREWALL_INPUT_PORTS", form.PORTS, None, "8080/tcp,5000-5010/udp",
        "Ports of other services here to keep reachable through the uplink")
    outbound_subnets: tuple[Network, ...] = variable(
        "FIREWALL_OUTBOUND_SUBNETS", form.SUBNETS, None, "192.168.0.0/16",
        "Networks to reach through the uplink instead of the tunnel")


@dataclass(frozen=True, slots=True)
class Dns:
    """DNS."""

    addresses: tuple[Address, ...] = variable(
        "DNS_ADDRESSES", form.ADDRESSES, "1.1.1.1,1.0.0.1,2606:4700:4700::1111,2606:4700:4700::1001",
        "9.9.9.9,2620:fe::fe", "DNS resolvers, queried through the tunnel",
        aliases=("DNS_ADDRESS", "DNS_UPSTREAM_PLAIN_ADDRESSES"))


@dataclass(frozen=True, slots=True)
class Shadowsocks:
    """Shadowsocks."""

    on: bool = variable(
        "SHADOWSOCKS", form.SWITCH, "on", "on", "Run the Shadowsocks server; off starts only the tunnel")
    port: int = variable(
        "SHADOWSOCKS_PORT", number(1, 65535), "8388", "8388", "Port to listen on, TCP and UDP")
    method: Method = variable(
        "SHADOWSOCKS_METHOD", form.METHOD, "2022-blake3-aes-128-gcm", "chacha20-ietf-poly1305",
        "Encryption method", aliases=("SHADOWSOCKS_CIPHER",))
    password: Secret | None = variable(
        "SHADOWSOCKS_PASSWORD", form.PASSWORD, None, "the output of `openssl rand -base64 16`",
        "Password; a 2022 method needs base64 of 16 or 32 bytes", "generated once, then saved", secret=True)
    users: tuple[RequestedUser, ...] = variable(
        "SHADOWSOCKS_USERS", form.USERS, None, "alice,bob",
        "Several users, each with a key; a missing key is generated once, then saved", secret=True)
    udp: bool = variable("SHADOWSOCKS_UDP", form.SWITCH, "on", "off", "Relay UDP as well as TCP")
    ipv6_first: bool = variable(
        "IPV6_FIRST", form.SWITCH, "off", "on",
        "Prefer IPv6 for names that clients ask for; some sites treat the families differently")
    allowed_cidrs: tuple[Network, ...] = variable(
        "SHADOWSOCKS_ALLOWED_CIDRS", form.NETWORKS, None, "203.0.113.0/24",
        "Networks that clients may connect from", "any")
    public_host: Address | str | None = variable(
        "SHADOWSOCKS_PUBLIC_HOST", form.HOST, None, "vps.example.com",
        "Host that clients connect to, for the link", "detected")
    public_port: int | None = variable(
        "SHADOWSOCKS_PUBLIC_PORT", number(1, 65535), None, "443",
        "Port that clients connect to, for the link", "SHADOWSOCKS_PORT")


@dataclass(frozen=True, slots=True)
class Health:
    """Health."""

    interval: float = variable(
        "HEALTH_INTERVAL", duration(1, 3600, "1s to 1h"), "10s", "10s",
        "How often to send a request through the tunnel")
    trace_urls: tuple[str, ...] = variable(
        "HEALTH_TRACE_URLS", form.URLS,
        "https://1.1.1.1/cdn-cgi/trace,https://[2606:4700:4700::1111]/cdn-cgi/trace",
        "https://www.cloudflare.com/cdn-cgi/trace",
        "Pages that report whether a request came through WARP")
    ca_file: Path | None = variable(
        "HEALTH_CA_FILE", form.READABLE, None, "/run/secrets/ca.pem",
        "CA certificates (PEM) that verify those pages", "the system's")
    server_address: Endpoint = variable(
        "HEALTH_SERVER_ADDRESS", form.LISTEN_ADDRESS, "127.0.0.1:9999", "127.0.0.1:9999",
        "Address that serves /healthz, /status and /metrics")
    reconnect_every: float | None = variable(
        "HEALTH_RECONNECT_EVERY", duration(60, 7 * 86400, "1m to 168h"), None, "6h",
        "How often to take a new exit: another endpoint, session and source port", "off")
    webhook_url: Secret | None = variable(
        "WEBHOOK_URL", form.WEBHOOK, None, "https://ntfy.sh/my-topic",
        "URL that each change of health is posted to: as text to ntfy, as JSON elsewhere", secret=True)
    exit_on_fatal: bool = variable(
        "EXIT_ON_FATAL", form.SWITCH, "off", "on",
        "Exit with code 69 after every repair has failed, instead of retrying")


@dataclass(frozen=True, slots=True)
class Logs:
    """Logs."""

    level: Literal["debug", "info", "warning", "error"] = variable(
        "LOG_LEVEL", choice("debug", "info", "warning", "error", warn="warning"), "info", "debug",
        "Log level")
    format: Literal["text", "json"] = variable(
        "LOG_FORMAT", choice("text", "json"), "text", "json", "Log format")
    print_link: bool = variable(
        "PRINT_LINK", form.SWITCH, "on", "off", "Print the link and QR code on the first run")
# fmt: on


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings, validated. `texts` is what was given, without secrets; `warnings` are for the log."""

    account: Account
    tunnel: Tunnel
    routing: Routing
    firewall: Firewall
    dns: Dns
    shadowsocks: Shadowsocks
    health: Health
    logs: Logs
    texts: dict[str, str]
    warnings: tuple[str, ...]


def declared(group: type) -> Iterator[tuple[str, Variable]]:
    """Yield field name and variable of each declaration in a group."""
    return ((item.name, item.metadata["variable"]) for item in fields(group))


GROUPS: dict[str, type] = {
    name: group for name, group in get_type_hints(Settings).items() if hasattr(group, "__dataclass_fields__")
}
VARIABLES: dict[str, Variable] = {
    variable.name: variable for group in GROUPS.values() for _, variable in declared(group)
}
