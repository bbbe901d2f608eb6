"""An example's own compose file, brought up by compose itself in the network of internet.py.

What is changed: images that are not here are stood in for (standin.py), the network is the one with the
emulated Cloudflare, its CA is known, and ports are published wherever the host has one free.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, Self

from docker.models.containers import Container

from tests.image.compose import IMAGE, TEST_IMAGE, compose, resolved
from tests.image.internet import NET4, NET6, OUTSIDE, STATION, Internet
from tests.image.made import LABEL
from tests.lab.product import eventually

CA = {"WARP_API_CA_FILE": "/cloudflare/ca.pem", "HEALTH_CA_FILE": "/cloudflare/ca.pem"}
BACK = f"ip route replace {OUTSIDE}0/24 via {NET4}1"
"""The way back to who asks for published ports: by the bridge, as it is where the bridge is the gateway."""

type Overlay = Callable[[dict[str, Any]], None]


class Example:
    """One example, up while inside."""

    def __init__(
        self,
        internet: Internet,
        name: str,
        commands: Mapping[str, list[str] | None],
        environment: Mapping[str, str] | None = None,
        overlay: Overlay = lambda _: None,
        *,
        files: Sequence[str] = (),
        number: int = 0,
        hasty: bool = True,
    ) -> None:
        """Prepare it. `commands` are what stands in for each foreign service; None: its own.

        `number` tells apart those up at once; `hasty`: Docker looks at the health every second.
        """
        self.internet = internet
        self.place = 64 + number
        self.uplink = f"{NET4}{self.place}"
        self._stack = ExitStack()
        self._project = f"ss-warp-test-{name}-{number}"
        self.config = resolved(*files or [f"examples/{name}/compose.yaml"], environment=environment)
        services = self.config["services"]
        self.owner = "network" if "network" in services else "ss-warp"
        self._stage(commands)
        if hasty and "ss-warp" in services:
            services["ss-warp"]["healthcheck"]["interval"] = "1s"
        overlay(self.config)

    def _stage(self, commands: Mapping[str, list[str] | None]) -> None:
        config = self.config
        config["name"] = self._project
        config["networks"] = {"default": {"name": self.internet.network.name, "external": True}}
        for volume in config.get("volumes", {}).values():
            del volume["name"]
        config.setdefault("volumes", {})["cloudflare"] = {"name": self.internet.volume.name, "external": True}
        for name, service in config["services"].items():
            service["labels"] = {LABEL: ""}
            for port in service.get("ports", ()):
                del port["published"]
            if name == "ss-warp":
                service.pop("build", None)
                service["image"] = IMAGE
                service["environment"] |= CA | {"SHADOWSOCKS_PUBLIC_HOST": self.uplink}
                service.setdefault("volumes", []).append("cloudflare:/cloudflare:ro")
            else:
                service |= {"image": TEST_IMAGE, "init": True}
                if command := commands[name]:
                    service["command"] = command
                service["environment"] = {"UPLINK": self.uplink, **service.get("environment", {})}
                if "networks" in service:
                    service["dns"] = ["1.1.1.1"]
                asked = "healthcheck" in service
                service["healthcheck"] = (
                    {"test": ["CMD", "true"], "interval": "1s"} if asked else {"disable": True}
                )
            if name == self.owner and "networks" in service:
                at = {"ipv4_address": self.uplink, "ipv6_address": f"{NET6}{self.place:x}"}
                service |= {"networks": {"default": at}, "mac_address": f"{STATION}{self.place % 16:x}"}

    def compose(self, *words: str) -> str:
        """Run compose on it."""
        return compose("--file", "-", "--project-name", self._project, *words, config=json.dumps(self.config))

    def __enter__(self) -> Self:
        """`up --detach`, which waits for what its services wait for."""
        self._stack.callback(self.compose, "down", "--volumes", "--remove-orphans", "--timeout", "0")
        try:
            self.up()
        except BaseException:
            self._stack.close()
            raise
        return self

    def up(self, *words: str) -> None:
        """Bring it up, again."""
        try:
            self.compose("up", "--detach", "--no-build", "--quiet-pull", *words)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.compose('logs', 'ss-warp')}") from None

    def __exit__(self, *_: object) -> None:
        """Take it down."""
        self._stack.close()

    def container(self, service: str) -> Container:
        """Return the container of a service, as it is now."""
        labels = [f"com.docker.compose.project={self._project}", f"com.docker.compose.service={service}"]
        [one] = self.internet.engine.containers.list(all=True, filters={"label": labels})
        return one

    def status(self) -> dict[str, Any]:
        """Return what ss-warp says of itself."""
        done = self.container("ss-warp").exec_run(["cat", "/run/ss-warp/status.json"])
        return json.loads(done.output) if done.output and done.exit_code == 0 else {}

    def link(self) -> str:
        """Return the link for Shadowsocks clients."""
        printed = self.container("ss-warp").exec_run(["ss-warp", "link"]).output.decode()
        [link] = [word for word in printed.split() if word.startswith("ss://")]
        return str(link)

    def connected(self, within: float = 20.0) -> None:
        """Wait until it is connected and serves."""

        def serving() -> bool:
            status = self.status()
            return status.get("state") == "connected" and bool(status["shadowsocks"]["listening"])

        eventually(serving, "connected", within)

    def asked(self, who: str | Container, *proxy: str, timeout: float = 5.0) -> dict[str, list[str]]:
        """Return what the origin says of a service or container, by each way to name the origin."""
        return self.internet.asked(
            self.container(who) if isinstance(who, str) else who, *proxy, timeout=timeout
        )

    def beside(self, stack: ExitStack, *command: str) -> Container:
        """Start a container that shares ss-warp's network, as a sidecar does."""
        owner = self.container(self.owner).id
        return self.internet.run(
            stack,
            command=list(command),
            network_mode=f"container:{owner}",
            environment={"UPLINK": self.uplink},
            cap_add=["NET_ADMIN"],
        )

    def published(self, port: int, host: str = f"{OUTSIDE}1") -> str:
        """Ask for a published port from the host's other side; return who it says we are."""
        bindings = self.container(self.owner).attrs["NetworkSettings"]["Ports"][f"{port}/tcp"]
        bound = next(one for one in bindings if ":" not in one["HostIp"])
        with ExitStack() as stack:
            self.beside(stack, *BACK.split()).wait(timeout=20)
        return self.internet.who(host, int(bound["HostPort"]))
