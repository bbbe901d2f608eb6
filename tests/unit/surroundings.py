"""Uplinks, an account and its endpoints, for the desired state's tests."""

from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from entrypoint.account.model import Account
from entrypoint.addresses import Endpoint
from entrypoint.routing.uplinks import Uplinks

ENDPOINTS = (
    Endpoint(ip_address("162.159.192.6"), 2408),
    Endpoint(ip_address("2606:4700:d0::a29f:c006"), 500),
)
ACCOUNT = Account(
    kind="free",
    access=None,
    private_key="private",
    license_key=None,
    peer_public_key="public",
    endpoints=ENDPOINTS,
    endpoint_name=None,
    ports=(),
    v4=IPv4Address("172.16.0.2"),
    v6=IPv6Address("2606:4700:110::2"),
    client_id=None,
    created=datetime(2026, 1, 1, tzinfo=UTC),
)
UPLINKS = Uplinks(
    links=("eth0",),
    addresses=(ip_address("172.18.0.5"),),
    listening=(ip_address("172.18.0.5"),),
    direct=(ip_network("198.51.101.0/24"),),
)
