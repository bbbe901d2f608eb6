"""Addresses that names once had, for the day when DNS is gone: a help, never a condition."""

import json
from collections.abc import Sequence
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from entrypoint import files
from entrypoint.errors import Error
from entrypoint.network.plan import Address
from entrypoint.warp.fields import parsed

NAMES: Final = 16
"""Names that are remembered: the API's, the edge's and what the user puts in their place."""


def recall(memory: Path | None, name: str) -> tuple[Address, ...]:
    """Return where `name` was, empty when that is not known."""
    return _all(memory).get(name, ()) if memory else ()


def remember(memory: Path | None, name: str, addresses: Sequence[Address]) -> None:
    """Keep where `name` is; a volume that cannot be written is no reason to stop."""
    known = _all(memory) if memory else {}
    if not memory or known.get(name) == tuple(addresses):
        return
    known.pop(name, None)
    latest = [*list(known.items())[1 - NAMES :], (name, tuple(addresses))]
    with suppress(Error):
        files.replace(memory, json.dumps({name: list(map(str, them)) for name, them in latest}).encode())


def _all(memory: Path) -> dict[str, tuple[Address, ...]]:
    try:
        kept = parsed(files.read(memory) or b"")
        names = kept.value if isinstance(kept.value, dict) else {}
        return {
            str(name): tuple(ip_address(entry.text()) for entry in kept.at(name).entries()) for name in names
        }
    except (Error, ValueError):
        return {}
