"""How addresses, networks, ports and endpoints are written."""

import re
from collections.abc import Callable, Iterator
from ipaddress import IPv6Address, ip_address, ip_network

from entrypoint.network.plan import Address, Network, Ports
from entrypoint.settings.forms import Form, clip, url, whole
from entrypoint.warp.endpoints import Endpoint, NamedEndpoint, parse_endpoint


def listed[T](parse: Callable[[str], T]) -> Callable[[str], tuple[T, ...]]:
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
        first = whole(match[1], 1, 65535, "port")
        last = whole(match[2] or match[1], 1, 65535, "port")
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


ADDRESSES = Form(listed(_resolver), "IP addresses, comma-separated")
NETWORKS = Form(listed(_network), "networks, comma-separated")
SUBNETS = Form(listed(_subnet), "networks, comma-separated, /8 (IPv6 /7) or smaller")
PORTS = Form(_ports, "N[-M][/tcp|/udp], comma-separated, 1 to 65535")
HOST = Form(_host, "a host name or IP address")
ENDPOINTS = Form(listed(parse_endpoint), "host[:port] or [v6]:port, comma-separated")
LISTENING = Form(_listening, "address:port")
HTTPS = Form(url("https"), "an https URL")
URLS = Form(listed(url("https", "http")), "http or https URLs, comma-separated")
