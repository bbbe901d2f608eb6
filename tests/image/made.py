"""What tests make with Docker: one label on all of it, and how it goes."""

from typing import Any

from docker.errors import NotFound
from docker.models.containers import Container

LABEL = "ss-warp.test"


def gone(thing: Any) -> None:
    """Remove a container, volume or network, whatever state it is in."""
    try:
        if isinstance(thing, Container):
            thing.remove(force=True, v=True)
        else:
            thing.remove()
    except NotFound:
        pass
