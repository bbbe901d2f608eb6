"""The least Shadowsocks client there is (SIP004, chacha20-ietf-poly1305): no question needs a process.

The real one is in tests/lab/client.py; what it proves is not proved again here.
"""

import hashlib
import hmac
import os
import socket
import struct
from dataclasses import dataclass, field
from ipaddress import ip_address

from nacl.bindings import crypto_aead_chacha20poly1305_ietf_decrypt as opened
from nacl.bindings import crypto_aead_chacha20poly1305_ietf_encrypt as sealed

METHOD = "chacha20-ietf-poly1305"
SALT, TAG, LENGTH = 32, 16, 2


def master_key(password: str) -> bytes:
    """Return the key of a password, as OpenSSL's EVP_BytesToKey makes it."""
    first = hashlib.md5(password.encode(), usedforsecurity=False).digest()
    return first + hashlib.md5(first + password.encode(), usedforsecurity=False).digest()


def session_key(key: bytes, salt: bytes) -> bytes:
    """Return HKDF-SHA1's 32 bytes for this salt."""
    pseudo = hmac.digest(salt, key, "sha1")
    first = hmac.digest(pseudo, b"ss-subkey\x01", "sha1")
    return (first + hmac.digest(pseudo, first + b"ss-subkey\x02", "sha1"))[:32]


def target(address: str, port: int) -> bytes:
    """Return the address as SOCKS5 writes it."""
    packed = ip_address(address).packed
    return (b"\x01" if len(packed) == 4 else b"\x04") + packed + struct.pack("!H", port)


@dataclass
class Cipher:
    """One direction of one connection: each piece has the next number."""

    key: bytes
    number: int = field(default=0)

    def _nonce(self) -> bytes:
        self.number += 1
        return (self.number - 1).to_bytes(12, "little")

    def seal(self, data: bytes) -> bytes:
        return sealed(data, None, self._nonce(), self.key)

    def open(self, data: bytes) -> bytes:
        """Raises nacl.exceptions.CryptoError."""
        return opened(data, None, self._nonce(), self.key)


def datagram(key: bytes, to: bytes, payload: bytes) -> bytes:
    """Return what asks the server to send `payload` there."""
    salt = os.urandom(SALT)
    return salt + Cipher(session_key(key, salt)).seal(to + payload)


def undatagram(key: bytes, data: bytes) -> bytes:
    """Return the payload of an answer."""
    plain = Cipher(session_key(key, data[:SALT])).open(data[SALT:])
    return plain[{1: 7, 4: 19}[plain[0]] :]


def fetch(stream: socket.socket, key: bytes, to: bytes, request: bytes) -> bytes:
    """Send `request` there and return all that comes back until the far end closes. Raises OSError."""
    salt = os.urandom(SALT)
    cipher, first = Cipher(session_key(key, salt)), to + request
    stream.sendall(salt + cipher.seal(struct.pack("!H", len(first))) + cipher.seal(first))
    with stream.makefile("rb") as answer:
        back, whole = Cipher(session_key(key, answer.read(SALT))), b""
        while head := answer.read(LENGTH + TAG):
            (size,) = struct.unpack("!H", back.open(head))
            whole += back.open(answer.read(size + TAG))
    return whole
