"""Links that clients import: SIP002, and the same as a QR code for a terminal."""

from base64 import urlsafe_b64encode
from ipaddress import IPv4Address, IPv6Address
from urllib.parse import quote

from shadowsocks.users import Credentials, User


def link(
    host: IPv4Address | IPv6Address | str,
    port: int,
    credentials: Credentials,
    user: User | None = None,
    tag: str = "ss-warp",
) -> str:
    """Return the `ss://` link of the server, or of one of its users.

    SIP002: methods of 2022 are percent-encoded, older ones base64url without padding. The colon between
    server key and user key is percent-encoded too: readers split at the first one.
    """
    method, password = credentials.method, credentials.client_password(user)
    if method.edition == 2022:
        userinfo = f"{method}:{quote(password, safe='')}"
    else:
        userinfo = urlsafe_b64encode(f"{method}:{password}".encode()).decode().rstrip("=")
    at = f"[{host}]" if isinstance(host, IPv6Address) else str(host)
    return f"ss://{userinfo}@{at}:{port}#{quote(tag, safe='')}"


def qr(text: str) -> str:
    """Return a QR code of half blocks for a dark terminal, its quiet zone included."""
    # Drawn once in a server's life; 50 ms of import for every start otherwise.
    import segno

    rows = [bytes(row) for row in segno.make(text, error="l", micro=False).matrix_iter(border=2)]
    rows += [b"\1" * len(rows[0])] * (len(rows) % 2)
    shapes = {(0, 0): "█", (0, 1): "▀", (1, 0): "▄", (1, 1): " "}
    pairs = zip(rows[::2], rows[1::2], strict=True)
    return "\n".join("".join(shapes[pair] for pair in zip(*two, strict=True)) for two in pairs)
