"""What is missing or wrong is named, with the remedy, by the design's exit code, within a second.

Run with the exact restrictions of compose.yaml, less or more one thing.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import docker
import pytest
from docker.models.networks import Network
from docker.models.volumes import Volume

from tests.image.compose import IMAGE, restrictions
from tests.image.conftest import Run
from tests.image.made import LABEL, gone
from tests.image.stage import STATE

TIMED = 'date +%s%N; "$0" "$@"; code=$?; date +%s%N; exit $code'
AT_ONCE = 1.0
"""Seconds, from the start of the process to its end."""
STARTS = 2
"""The quicker one counts: what else the machine does in that second is not ours."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a container ended: code, all it printed, seconds it ran."""

    code: int
    text: str
    seconds: float


@pytest.fixture(scope="module")
def nowhere(engine: docker.DockerClient) -> Iterator[Network]:
    """A network that leads nowhere."""
    made = engine.networks.create(f"{LABEL}-nowhere", driver="bridge", internal=True, labels={LABEL: ""})
    yield made
    gone(made)


@pytest.fixture
def ended(image: Any, run: Run, volume: Volume, nowhere: Network) -> Any:
    def start(
        environment: dict[str, str] | None = None, mode: str = "rw", command: str = "run", **changes: Any
    ) -> Ended:
        arguments = restrictions() | {
            "network": nowhere.name,
            "volumes": {volume.name: {"bind": STATE, "mode": mode}},
        }
        arguments |= changes
        # tini is not PID 1 here, and would say so.
        arguments["environment"] |= {"TINI_SUBREAPER": "1"} | (environment or {})
        # Timed inside: what Docker needs for itself is not ours.
        words = [*image.attrs["Config"]["Entrypoint"], command]
        return min((once(arguments, words) for _ in range(STARTS)), key=lambda one: one.seconds)

    def once(arguments: dict[str, Any], words: list[str]) -> Ended:
        container = run(**arguments, entrypoint=["sh", "-c", TIMED, *words])
        code = container.wait(timeout=30)["StatusCode"]
        began, *text, end = container.logs().decode().splitlines()
        return Ended(code, "\n".join(text), (int(end) - int(began)) / 1e9)

    return start


def refused(outcome: Ended, code: int, *words: str) -> None:
    assert outcome.code == code, outcome.text
    for word in words:
        assert word in outcome.text
    assert "Traceback" not in outcome.text
    print(f"{outcome.seconds:.2f} s")
    assert outcome.seconds <= AT_ONCE


@pytest.mark.parametrize("capability", ["NET_ADMIN", "SETUID", "SETGID", "KILL"])
def test_a_missing_capability_is_named(ended: Any, capability: str) -> None:
    given = [one for one in restrictions()["cap_add"] if one != capability]
    refused(ended(cap_add=given), 77, capability, f"cap_add: [{capability}]")


def test_a_missing_tun_device_is_named(ended: Any) -> None:
    outcome = ended({"WIREGUARD_IMPLEMENTATION": "userspace"}, devices=[])
    refused(outcome, 77, "/dev/net/tun", "devices")


def test_a_volume_that_cannot_be_written_is_named(ended: Any) -> None:
    refused(ended(mode="ro"), 74, STATE, "writable")


def test_all_wrong_settings_are_named_at_once(ended: Any) -> None:
    wrong = {
        "SHADOWSOCKS_METHOD": "rot13",
        "SHADOWSOCKS_PASSWORD": "not-base64-at-all",
        "HEALTH_INTERVAL": "soon",
        "WARP_ENDPOINTS": "162.159.192.1:70000",
        "FIREWAL": "off",
    }
    outcome = ended(wrong)
    refused(outcome, 78, "SHADOWSOCKS_METHOD", "HEALTH_INTERVAL", "WARP_ENDPOINTS", "FIREWAL")
    assert "did you mean FIREWALL" in outcome.text
    assert "not-base64-at-all" not in outcome.text


def test_nothing_is_left_on_the_volume_by_a_refusal(ended: Any, run: Run, volume: Volume) -> None:
    refused(ended({"SHADOWSOCKS_METHOD": "rot13"}), 78)
    look = run(
        image=IMAGE,
        entrypoint=["find", STATE, "-mindepth", "1"],
        network_mode="none",
        volumes={volume.name: {"bind": STATE, "mode": "ro"}},
    )
    look.wait(timeout=30)
    assert look.logs().decode() == ""


def test_an_unknown_command_is_a_usage_error(ended: Any) -> None:
    refused(ended(command="frobnicate"), 64, "frobnicate")
