"""Impatient traffic: what H itself sends in clear if it can, and what goes through Shadowsocks."""

import http.client
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType
from typing import Self

from tests.lab.client import Client, Target
from tests.lab.product import eventually
from tests.lab.senders import Kind, Sender
from tests.lab.topology import Lab
from tests.pace import longer

EVERY = 0.001
PING = b"ping of the lab "
SIZE = 1 << 20


class Prober:
    """Sends one probe of each kind every `gap` seconds (pace.py), from H, while inside."""

    def __init__(self, lab: Lab, kinds: Sequence[Kind], gap: float = EVERY) -> None:
        self._lab, self._kinds, self._gap = lab, kinds, longer(gap)
        self.went: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self._stopping = threading.Event()

    @property
    def tried(self) -> int:
        """How many were tried."""
        return self.went.total() + self.refused.total()

    def probed(self, each: int) -> int:
        """Wait until so many more of every kind were tried; return how many in all."""
        wanted = self.tried + (each + 1) * len(self._kinds)
        eventually(lambda: self.tried >= wanted, f"{each} probes of each kind", 60 + each / 20)
        return self.tried

    def __enter__(self) -> Self:
        """Start."""
        with self._lab.inside("H"):
            self._senders = [Sender(one) for one in self._kinds]
        self._thread = threading.Thread(target=self._send, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop."""
        self._stopping.set()
        self._thread.join()
        for one in self._senders:
            one.close()

    def _send(self) -> None:
        with self._lab.inside("H"):
            while not self._stopping.wait(self._gap):
                for one in self._senders:
                    (self.went if one.send() else self.refused)[one.kind.name] += 1


class Pinger:
    """Sends numbered echoes through Shadowsocks every `gap` seconds (pace.py), and notes each answer."""

    def __init__(self, client: Client, target: Target, gap: float = EVERY) -> None:
        self._client, self._target, self._gap = client, target, longer(gap)
        self._sent: list[float] = []
        self._news = threading.Condition()
        self._answers: dict[int, float] = {}
        self._stopping = threading.Event()

    @property
    def sent(self) -> int:
        """How many were sent."""
        return len(self._sent)

    def again(self, since: float, within: float) -> float:
        """Wait for an answer to anything sent after `since`; return the seconds from then to it."""

        def answered() -> float:
            with self._news:
                return min((at for n, at in self._answers.items() if self._sent[n] > since), default=0.0)

        return eventually(answered, "an echo through Shadowsocks", within) - since

    def __enter__(self) -> Self:
        """Start."""
        self._association = self._client.udp(timeout=0.1)
        self._threads = [threading.Thread(target=one, daemon=True) for one in (self._send, self._receive)]
        for one in self._threads:
            one.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop."""
        self._stopping.set()
        for one in self._threads:
            one.join()
        self._association.close()

    def _send(self) -> None:
        while not self._stopping.wait(self._gap):
            number = len(self._sent)
            self._sent.append(time.monotonic())
            with suppress(OSError):
                self._association.send(PING + b"%d " % number, self._target)

    def _receive(self) -> None:
        while not self._stopping.is_set():
            with suppress(OSError):
                _host, _port, payload = self._association.receive()
                with self._news:
                    self._answers[int(payload.removeprefix(PING).split()[0])] = time.monotonic()


class Load:
    """Downloads through the chain without end while inside; `downloads` counts what came whole."""

    def __init__(self, client: Client, target: Target) -> None:
        self._client, self._target = client, target
        self._stopping = threading.Event()
        self.downloads = 0

    def flows(self, within: float = 10.0) -> None:
        """Wait until it goes on."""
        before = self.downloads
        eventually(lambda: self.downloads > before + 1, "downloads go on", within)

    def __enter__(self) -> Self:
        """Start."""
        self._thread = threading.Thread(target=self._download, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop."""
        self._stopping.set()
        self._thread.join()

    def _download(self) -> None:
        while not self._stopping.is_set():
            with suppress(OSError, AssertionError, http.client.HTTPException):
                self._client.request(self._target, f"/bytes/{SIZE}", timeout=longer(1))
                self.downloads += 1
