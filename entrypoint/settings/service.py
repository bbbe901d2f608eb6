"""Settings of Shadowsocks, health and logs: what is seen from outside."""

from pathlib import Path
from typing import Literal

from pydantic import SecretStr

from entrypoint.network.plan import Address, Network
from entrypoint.settings.addresses import HOST, LISTENING, NETWORKS, URLS
from entrypoint.settings.forms import METHOD, PASSWORD, READABLE, SWITCH, USERS, choice, duration, number
from entrypoint.settings.variable import Group, variable
from entrypoint.warp.endpoints import Endpoint
from shadowsocks.method import Method
from shadowsocks.users import Wanted


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
    users: tuple[Wanted, ...] = variable(
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
        LISTENING,
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
