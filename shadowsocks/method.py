"""Encryption methods: which there are, their key lengths, and what a password must be (SIP004, SIP022)."""

import binascii
import secrets
from base64 import b64decode, b64encode
from dataclasses import dataclass

MINIMUM_PASSWORD = 16
"""Characters of a 2017 method's password: it can be guessed offline from one recorded packet."""


@dataclass(frozen=True, slots=True)
class Method:
    """An AEAD method. `key` is in bytes; `edition` 2022 takes a raw key, 2017 any password."""

    name: str
    key: int
    edition: int
    several_users: bool = False

    def __str__(self) -> str:
        return self.name


METHODS = {
    method.name: method
    for method in (
        Method("2022-blake3-aes-128-gcm", 16, 2022, several_users=True),
        Method("2022-blake3-aes-256-gcm", 32, 2022, several_users=True),
        # XChaCha has no identity header in SIP022, hence one user.
        Method("2022-blake3-chacha20-poly1305", 32, 2022),
        Method("aes-128-gcm", 16, 2017),
        Method("aes-256-gcm", 32, 2017),
        Method("chacha20-ietf-poly1305", 32, 2017),
    )
}


def password_problem(method: Method, password: str) -> str:
    """Return what is wrong with a password or key, without repeating it; empty when it will do."""
    if method.edition == 2017:
        if len(password) < MINIMUM_PASSWORD:
            return f"too short: {len(password)} characters, {method} needs {MINIMUM_PASSWORD}"
        return ""
    try:
        length = len(b64decode(password, validate=True))
    except (binascii.Error, ValueError):
        return f"not base64: {method} needs base64 of {method.key} bytes"
    # Spelled otherwise (missing padding, stray bits) some clients read another key.
    if length == method.key and b64encode(b64decode(password)).decode() != password:
        return f"not canonical base64: {method} needs base64 of {method.key} bytes"
    return "" if length == method.key else f"{length} bytes, {method} needs base64 of {method.key}"


def generated_password(method: Method) -> str:
    """Return a new random password or key for this method."""
    return b64encode(secrets.token_bytes(method.key)).decode()
