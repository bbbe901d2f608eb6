"""Links read the way clients read base64."""

import re
from base64 import urlsafe_b64decode


def read_base64(uri: str) -> tuple[str, str]:
    """Read a link the way Shadowsocks for Android does: base64 user information, whatever the method."""
    found = re.fullmatch(r"ss://([A-Za-z0-9+/=_-]+)@(.+):([0-9]+)(?:/\?[^#]*)?#(.*)", uri)
    assert found, uri
    method, _, password = urlsafe_b64decode(found[1] + "=" * (-len(found[1]) % 4)).decode().partition(":")
    return method, password
