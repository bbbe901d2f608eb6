"""Missing capabilities and old kernels are named with their remedy."""

import pytest

from entrypoint.early.preflight import CAPABILITIES, check_privileges, read_privileges
from entrypoint.errors import PlatformError

ALL = sum(1 << bit for bit in CAPABILITIES.values())


@pytest.mark.parametrize(
    ("facts", "message", "hint"),
    [
        ((ALL & ~(1 << 12), "6.12.0"), "missing capability NET_ADMIN", "add cap_add: [NET_ADMIN]"),
        (
            (1 << 5, "6.12.0"),
            "missing capabilities NET_ADMIN, SETGID, SETUID",
            "add cap_add: [NET_ADMIN, SETGID, SETUID]",
        ),
        (
            (ALL, "5.4.0-150-generic"),
            "Linux 5.4.0-150-generic is too old to bind ssserver to the tunnel",
            "use Linux 5.7 or newer",
        ),
    ],
)
def test_what_is_missing_is_named(facts: tuple[int, str], message: str, hint: str) -> None:
    with pytest.raises(PlatformError) as error:
        check_privileges(*facts)
    assert (error.value.message, error.value.hint, error.value.exit_code) == (message, hint, 77)


@pytest.mark.parametrize("release", ["5.7.0", "6.12.48+deb13-cloud-amd64", "10.0"])
def test_enough_is_enough(release: str) -> None:
    check_privileges(ALL | 1 << 21, release)


def test_the_facts_of_this_process_are_readable() -> None:
    capabilities, release = read_privileges()
    assert capabilities >= 0
    assert release[0].isdigit()
