"""A registered device as the API describes it, and the account read from it."""

from collections.abc import Callable
from datetime import UTC, datetime
from ipaddress import ip_address

from entrypoint.account.model import Account, new_private_key, parse_account, public_key
from entrypoint.strict_json import JsonValue
from tests.fakes.warp_api import device_object

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
PRIVATE_KEY = new_private_key()
OWN = (ip_address("198.51.100.7"), ip_address("2001:db8::7"))


def read(device: object, warn: Callable[[str], object] = lambda problem: None) -> Account:
    return parse_account(JsonValue(device), private_key=PRIVATE_KEY, created=NOW, own=OWN, warn=warn)


def account() -> Account:
    return read(device_object(public_key(PRIVATE_KEY)))
