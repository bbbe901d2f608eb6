"""Network namespaces: anonymous ones that die with their process, and stepping into any of them."""

import ctypes
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Self

from tests.pace import longer


class Namespace:
    """A network namespace, held by a descriptor. Nothing names it, so nothing is left of it in a crash."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    @classmethod
    def new(cls) -> Self:
        """Create one; its loopback is up."""
        before = _current()
        try:
            os.unshare(os.CLONE_NEWNET)
            made = cls(_current())
            run("ip", "link", "set", "lo", "up")
        finally:
            os.setns(before, os.CLONE_NEWNET)
            os.close(before)
        return made

    @classmethod
    def named(cls, name: str) -> Self:
        """Open one made by `ip netns add`."""
        return cls(os.open(f"/run/netns/{name}", os.O_RDONLY | os.O_CLOEXEC))

    @classmethod
    def current(cls) -> Self:
        """Return the one this thread is in."""
        return cls(_current())

    @property
    def path(self) -> str:
        """A path that `nsenter --net=` and `ip link set netns` take while this process lives."""
        return f"/proc/{os.getpid()}/fd/{self._fd}"

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Be inside, with this thread: sockets and children made here stay there. No await in between."""
        before = _current()
        os.setns(self._fd, os.CLONE_NEWNET)
        try:
            yield
        finally:
            os.setns(before, os.CLONE_NEWNET)
            os.close(before)

    def ip(self, *lines: str) -> None:
        """Run these `ip` commands (without the word ip) in it, in one go."""
        with self.entered():
            run("ip", "-batch", "-", text="\n".join(lines) + "\n")

    def output(self, *argv: str) -> list[str]:
        """Run a program in it and return the lines it printed."""
        with self.entered():
            return run(*argv).splitlines()

    def nft(self, text: str) -> None:
        """Load this ruleset in it."""
        with self.entered():
            run("nft", "-f", "-", text=text)

    def sysctl(self, **values: int) -> None:
        """Set these of its sysctls below net; dots are written as two underscores."""
        root = _sysctls()
        with self.entered():
            for name, value in values.items():
                (root / "net" / name.replace("__", "/")).write_text(str(value))

    def close(self) -> None:
        """Let go of it."""
        os.close(self._fd)


def run(*argv: str, text: str = "") -> str:
    """Run a program to its end in this thread's namespace. Raises RuntimeError with what it said."""
    done = subprocess.run(argv, input=text, capture_output=True, text=True, check=False, timeout=longer(20))
    if done.returncode:
        raise RuntimeError(f"{' '.join(argv)}: {done.stderr.strip()}\n{text}")
    return done.stdout


def _current() -> int:
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


@cache
def _sysctls() -> Path:
    """Return a writable /proc/sys; in a container ours is read-only, so we mount a fresh one for us alone."""
    if os.access("/proc/sys/net/ipv4/ip_forward", os.W_OK):
        return Path("/proc/sys")
    private_mounts()
    target = tempfile.mkdtemp(prefix="proc-")
    _mount(b"proc", target.encode(), b"proc", 0)
    return Path(target) / "sys"


MS_REC, MS_PRIVATE = 0x4000, 0x40000


@cache
def private_mounts() -> None:
    """Give this process its own mounts. To be called before threads are started."""
    os.unshare(os.CLONE_NEWNS)
    _mount(None, b"/", None, MS_REC | MS_PRIVATE)


def private_directory(path: str) -> None:
    """Mount an empty directory over `path`, for this process and its children alone."""
    private_mounts()
    Path(path).mkdir(parents=True, exist_ok=True)
    _mount(b"tmpfs", path.encode(), b"tmpfs", 0)


def _mount(source: bytes | None, target: bytes, kind: bytes | None, flags: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(source, target, kind, flags, None):
        raise OSError(ctypes.get_errno(), f"cannot mount {target.decode()}: is SYS_ADMIN missing?")
