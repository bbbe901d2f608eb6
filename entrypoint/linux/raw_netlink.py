"""Netlink requests by hand (linux/netlink.h), for what has to be light to import or fast over many messages.

A listing that a change interrupts is repeated, here and for everyone in the same way.
"""

import errno
import os
import socket
import struct
from collections.abc import Callable, Iterator
from time import sleep

REQUEST, ACK, DUMP, INTERRUPTED = 0x1, 0x4, 0x300, 0x10
"""NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR."""
NLMSG_ERROR, NLMSG_DONE = 2, 3
HEADER = 16

ATTEMPTS = 25
RETRY_PAUSE = 0.01
"""Seconds between two attempts at a listing: together well below the time that an undo has."""

PATIENCE = 2.0
"""Seconds for an answer of the kernel."""

SOL_NETLINK, GET_STRICT_CHK = 270, 12
"""linux/socket.h, linux/netlink.h."""

type Keep = Callable[[bytes, int], bool]
"""Judge the message that begins at this place of the buffer, header included."""

type Skip = Callable[[bytes], bool]
"""Return whether a whole buffer of messages holds nothing to keep."""


def ask(
    protocol: int,
    kind: int,
    flags: int,
    body: bytes,
    keep: Keep | None = None,
    skip: Skip | None = None,
    *,
    strict: bool = False,
) -> list[bytes]:
    """Send one request; return the answers, headers included. Raises OSError with the kernel's errno.

    `strict`: only what matches the request's fields is listed.
    """
    for _ in range(ATTEMPTS):
        answers = _ask_once(protocol, kind, flags, body, keep, skip, strict)
        if answers is not None:
            return answers
        sleep(RETRY_PAUSE)
    raise OSError(errno.EINTR, "the network changes faster than it can be listed")


def _ask_once(
    protocol: int, kind: int, flags: int, body: bytes, keep: Keep | None, skip: Skip | None, strict: bool
) -> list[bytes] | None:
    """Return None if a change interrupted the listing: half of it is old."""
    answers: list[bytes] = []
    interrupted = 0
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol) as sock:
        sock.settimeout(PATIENCE)
        sock.setsockopt(SOL_NETLINK, GET_STRICT_CHK, strict)
        sock.send(struct.pack("=IHHII", HEADER + len(body), kind, REQUEST | flags, 1, 0) + body)
        while True:
            data = sock.recv(1 << 17)
            at = len(data) if skip and skip(data) else 0
            while at < len(data):
                length, answer, answer_flags = struct.unpack_from("=IHH", data, at)
                interrupted |= answer_flags & INTERRUPTED
                if answer == NLMSG_ERROR and (code := -struct.unpack_from("=i", data, at + HEADER)[0]):
                    raise OSError(code, os.strerror(code))
                if answer in {NLMSG_DONE, NLMSG_ERROR}:
                    return None if interrupted else answers
                if keep is None or keep(data, at):
                    answers.append(data[at : at + length])
                at += max((length + 3) & ~3, HEADER)
            if not flags & (DUMP | ACK):
                return answers


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield type and content of each attribute; a nested one is content again."""
    while len(data) >= 4:
        length, kind = struct.unpack_from("=HH", data)
        yield kind & 0x3FFF, data[4:length]
        data = data[max((length + 3) & ~3, 4) :]
