"""What the tunnel's datagrams are like, from settings, uplink and account: size and reserved bytes."""

from entrypoint.errors import SettingsError
from entrypoint.settings import Settings
from entrypoint.warp.account import Account

OVERHEAD = 80
"""Bytes that WireGuard adds to a packet, by IPv6: header 40, UDP 8, its own 32."""

IPV6_MTU = 1280
"""The least that IPv6 works with (RFC 8200 section 5)."""

LARGEST_MTU = 1420
"""More is cut somewhere on the way to WARP, also where the uplink has 9000."""


def mtu(settings: Settings, uplink: int) -> int:
    """Return the device's MTU; `auto` is what fits into the uplink's packets, within what WARP bears."""
    asked = settings.tunnel.mtu
    return asked if asked != "auto" else min(max(uplink - OVERHEAD, IPV6_MTU), LARGEST_MTU)


def reserved(settings: Settings, account: Account) -> bytes:
    """Return the three reserved bytes, zeros when none are to be sent.

    Raises SettingsError when they are asked for and the account does not say which.
    """
    match settings.tunnel.reserved:
        case bytes(octets):
            return octets
        case "off":
            return bytes(3)
        case "auto":
            return account.client_id or bytes(3)
        case "on" if account.client_id is None:
            raise SettingsError(
                ["WARP_RESERVED=on: this account came without a client_id; set the bytes, e.g. 193,29,7"]
            )
        case "on":
            return account.client_id
