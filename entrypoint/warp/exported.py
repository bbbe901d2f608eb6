"""Accounts for other programs: a profile for wg-quick, and wgcf's account file. Both are secrets."""

import json
from typing import Final

from entrypoint.warp.account import Account

DNS: Final = "1.1.1.1, 1.0.0.1, 2606:4700:4700::1111, 2606:4700:4700::1001"


def profile(account: Account) -> str:
    """Return a WireGuard profile that wg-quick takes as it is; the reserved bytes are a comment in it."""
    endpoint = next(iter(account.endpoints), account.endpoint_name)
    lines = [
        "[Interface]",
        f"PrivateKey = {account.private_key}",
        f"Address = {', '.join(map(str, account.addresses))}",
        f"DNS = {DNS}",
        "MTU = 1280",
        "",
        "[Peer]",
        f"PublicKey = {account.peer_public_key}",
        "AllowedIPs = 0.0.0.0/0, ::/0",
        f"Endpoint = {endpoint}",
        "PersistentKeepalive = 25",
    ]
    if account.client_id:
        lines.append(f"# Reserved = {', '.join(map(str, account.client_id))}")
    return "\n".join(lines) + "\n"


def wgcf_account(account: Account) -> str | None:
    """Return wgcf-account.toml, None for an account without a token: wgcf could do nothing with it."""
    if account.access is None:
        return None
    members = {
        "access_token": account.access.token,
        "device_id": account.access.device_id,
        "license_key": account.license_key or "",
        "private_key": account.private_key,
    }
    # A JSON string of printable ASCII is a TOML one, too.
    return "".join(f"{name} = {json.dumps(value)}\n" for name, value in members.items())
