"""The namespace of a WireGuard device, for the tests of the emulated machine."""

from collections.abc import Iterator

import pytest

from tests.cloudflare.netns import Namespace


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    made = Namespace.new()
    made.ip("link add wg0 type wireguard")
    yield made
    made.close()
