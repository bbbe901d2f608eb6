"""compose.yaml as compose v2 understands it, and as arguments for the Docker SDK."""

import json
import os
import subprocess
import textwrap
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
IMAGE = os.environ.get("IMAGE", "ss-warp")
TEST_IMAGE = os.environ.get("TEST_IMAGE", "ss-warp-test")
"""What `make` has built."""


def compose(*words: str, config: str = "", environment: Mapping[str, str] | None = None) -> str:
    """Run compose, with no .env; `config` is what it reads from standard input. Return what it prints."""
    done = subprocess.run(
        ["docker-compose", "--env-file", os.devnull, *words],
        cwd=ROOT,
        env={**os.environ, **(environment or {})},
        input=config,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{words}: {done.stderr}"
    return done.stdout


def resolved(*paths: str, environment: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return compose files, the later on top of the former, as compose understands them."""
    files = [word for path in paths for word in ("--file", path)]
    config: dict[str, Any] = json.loads(
        compose(*files, "config", "--format", "json", environment=environment)
    )
    return config


def parsed(text: str) -> Any:
    """Return what a YAML text holds, by compose's parser, as an extension field of a compose file."""
    wrapped = "services: {none: {image: none}}\nx-text:\n" + textwrap.indent(text, "  ")
    words = ("--file", "-", "config", "--no-interpolate", "--format", "json")
    return json.loads(compose(*words, config=wrapped))["x-text"]


@cache
def composed(path: str = "compose.yaml") -> dict[str, Any]:
    """Return the service ss-warp of compose.yaml, or of an example's."""
    service: dict[str, Any] = resolved(path)["services"]["ss-warp"]
    return service


def restrictions() -> dict[str, Any]:
    """Return what compose.yaml allows and forbids, for `containers.run`; no ports, no restarts, no volume."""
    service = composed()
    return {
        "image": IMAGE,
        "cap_drop": service["cap_drop"],
        "cap_add": service["cap_add"],
        "security_opt": service["security_opt"],
        "read_only": service["read_only"],
        "tmpfs": dict.fromkeys(service["tmpfs"], ""),
        "devices": [f"{device['source']}:{device['target']}:rwm" for device in service["devices"]],
        "sysctls": service["sysctls"],
        "dns": service["dns"],
        "environment": dict(service["environment"]),
    }
