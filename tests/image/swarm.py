"""A Swarm of one node, made for a test and left again, with examples/swarm in it.

The engine joins every task to the network docker_gwbridge: here that is the one behind which the emulated
Cloudflare is, so it must not exist before.
"""

import json
import os
import subprocess
from contextlib import ExitStack
from typing import Any, Self

import yaml
from docker.models.containers import Container

from tests.image.compose import ROOT
from tests.image.example import CA
from tests.image.internet import Internet, Place
from tests.image.made import LABEL, gone
from tests.lab.product import eventually

BRIDGE = Place("docker_gwbridge", "10.213.191.", "fd5c:5c1e:d391::", "02:42:0a:d5:bf:4", auto=True)
STACK = "ss-warp-test"
SERVICE = f"{STACK}_ss-warp"
PASSWORD = "MDEyMzQ1Njc4OWFiY2RlZg=="
PORT, SOCKS = 18388, 11080
"""Free on the host, as far as a test can choose."""


def docker_cli(*words: str, config: str = "") -> str:
    """Run `docker` with these words; return what it prints."""
    done = subprocess.run(
        ["docker", *words],
        env=os.environ | {"SHADOWSOCKS_PUBLIC_HOST": "", "SHADOWSOCKS_METHOD": ""},
        input=config,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{words}: {done.stderr}"
    return done.stdout.strip()


class Swarm:
    """The node, with the example's stack when it has been deployed; leaving undoes all of it."""

    def __init__(self, internet: Internet, image: str) -> None:
        self.internet, self.image = internet, image
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        """Make the Swarm, its secret and the node's label."""
        with ExitStack() as stack:
            # A single node: it listens on loopback.
            docker_cli("swarm", "init", "--advertise-addr", "127.0.0.1", "--listen-addr", "127.0.0.1")
            stack.callback(self._leave)
            docker_cli("secret", "create", "ss-warp-password", "-", config=PASSWORD)
            self.node("--label-add", "ss-warp=true")
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _leave(self) -> None:
        """Leave, which ends its containers; wait until they and their places in the bridge are gone."""
        networks, stack = self.internet.engine.networks, {"label": f"com.docker.stack.namespace={STACK}"}
        docker_cli("stack", "rm", STACK)
        eventually(lambda: not networks.list(filters=stack), "its network is gone", 30)
        docker_cli("swarm", "leave", "--force")
        eventually(lambda: not self._containers(all=True), "the tasks are gone", 30)
        for volume in self.internet.engine.volumes.list(filters=stack):
            gone(volume)

        def alone() -> bool:
            self.internet.network.reload()
            return len(self.internet.network.attrs["Containers"]) == 1

        eventually(alone, "the emulator is alone", 20)

    def node(self, *words: str) -> None:
        """Update the only node."""
        docker_cli("node", "update", *words, docker_cli("node", "ls", "--format", "{{.ID}}"))

    def deploy(self, **environment: str) -> None:
        """Deploy the example, with these settings on top of its own."""
        config = yaml.safe_load((ROOT / "examples/swarm/stack.yaml").read_text())
        service = config["services"]["ss-warp"]
        host = f"{self.internet.place.net4}1"
        # By its id an image is looked for on no registry.
        service |= {"image": self.image, "labels": {LABEL: ""}}
        service["environment"]["SHADOWSOCKS_PUBLIC_PORT"] = str(PORT)
        service["environment"] |= CA | {"SHADOWSOCKS_PUBLIC_HOST": host} | environment
        service["volumes"].append("cloudflare:/cloudflare:ro")
        service["healthcheck"]["interval"] = "1s"
        service["deploy"]["update_config"]["monitor"] = "3s"
        service["deploy"]["restart_policy"]["delay"] = "1s"
        for port in service["ports"]:
            port["published"] = PORT
        config["volumes"]["cloudflare"] = {"external": True, "name": self.internet.volume.name}
        words = ("stack", "deploy", "--resolve-image", "never", "--compose-file", "-", STACK)
        docker_cli(*words, config=json.dumps(config))

    def _containers(self, **more: Any) -> list[Container]:
        label = {"label": f"com.docker.swarm.service.name={SERVICE}"}
        found: list[Container] = self.internet.engine.containers.list(
            filters=label, ignore_removed=True, **more
        )
        return found

    def tasks(self) -> list[Container]:
        """Return those that run."""
        return self._containers()

    def healthy(self, within: float = 40.0) -> Container:
        """Wait until one task runs and is healthy."""

        def one() -> list[Container]:
            found = self._containers()
            return [each for each in found if each.attrs["State"]["Health"]["Status"] == "healthy"]

        try:
            [task] = eventually(one, "a healthy task", within)
        except AssertionError as error:
            raise AssertionError(
                f"{error}\n{docker_cli('service', 'ps', '--no-trunc', SERVICE)}\n{self.logs()}"
            ) from None
        return task

    def logs(self) -> str:
        """Return what all its tasks have printed."""
        return docker_cli("service", "logs", "--raw", SERVICE)

    def update(self) -> str:
        """Return the state of the last update."""
        found = json.loads(docker_cli("service", "inspect", SERVICE))[0]
        return str(found.get("UpdateStatus", {}).get("State", ""))

    def client(self, stack: ExitStack, link: str) -> Container:
        """Start a client on the host itself, which comes in by the published port."""
        command = ["sslocal", "-b", f"127.0.0.1:{SOCKS}", "-U", "--server-url", link]
        return self.internet.run(stack, command=command, network_mode="host")
