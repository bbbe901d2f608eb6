"""Read and atomically replace files in the state directory; lock the directory.

Everything works relative to an open descriptor of the directory, and follows no symbolic link.
"""

import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from entrypoint.errors import BusyError, StateError

ACCOUNT_FILE = "account.json"
SHADOWSOCKS_FILE = "shadowsocks.json"
NETWORK_FILE = "network.json"
PUBLIC_ADDRESS_FILE = "public-address"  # the server's address, as detected on the first run
ADDRESS_CACHE_FILE = "addresses.json"  # what the names of API and edge resolved to

MAX_READ = 1 << 20
"""Bytes to read at most: our files stay far below it, and any other file must not fill the memory."""

_FRESH = ".new"
_OPEN = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK  # a FIFO in place of a file must not block


class HeldError(BusyError):
    """Another process uses this state directory."""


def read(path: Path) -> bytes | None:
    """Return the content of the file, None if it does not exist. Raises StateError."""
    with _explained(path), _opened(path.parent) as directory:
        try:
            descriptor = os.open(path.name, os.O_RDONLY | _OPEN, dir_fd=directory)
        except FileNotFoundError:
            return None
        try:
            # A device or a directory in place of the file would block or fail later, with a worse message.
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise StateError(f"{path} is not a regular file")
            with os.fdopen(descriptor, "rb", closefd=False) as file:
                return file.read(MAX_READ)
        finally:
            os.close(descriptor)


def replace(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Replace the whole file: after a crash it is the old one or the new one, never a mixture.

    Raises StateError; BusyError if the disk is full.
    """
    fresh = f".{path.name}{_FRESH}"
    with _explained(path), _opened(path.parent) as directory:
        _discard(fresh, directory)  # left by a killed predecessor
        try:
            # EXCL and no links: a file of this name that another process planted must not receive our keys.
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _OPEN
            with os.fdopen(os.open(fresh, flags, 0o600, dir_fd=directory), "wb") as file:
                file.write(data)
                file.flush()
                os.fchmod(file.fileno(), mode)  # the umask may have removed bits
                os.fsync(file.fileno())
            os.rename(fresh, path.name, src_dir_fd=directory, dst_dir_fd=directory)
        except BaseException:
            _discard(fresh, directory)
            raise
        # Without it the rename itself may be lost in a power cut.
        os.fsync(directory)


@contextmanager
def lock(directory: Path) -> Iterator[None]:
    """Hold the state directory for this process; remove files that a killed one left half written.

    Raises BusyError if another process holds it, StateError if the directory is not usable.
    """
    path = directory / "lock"
    with _explained(path), _opened(directory) as here:
        # The kernel releases it with the process, so a killed supervisor leaves no stale lock.
        lock = _open_lock(here)
    try:
        with _explained(path):
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = "".join(filter(str.isprintable, os.pread(lock, 200, 0).decode(errors="replace")))
                raise HeldError(
                    f"{directory} is in use by {holder or 'another process'}",
                    "stop that one, or give each its own state volume",
                ) from None
        with suppress(OSError):  # full or read-only: the lock works without a name in it
            os.ftruncate(lock, 0)
            os.pwrite(lock, f"process {os.getpid()} of {os.uname().nodename}".encode(), 0)
        with suppress(OSError), _opened(directory) as here:
            for name in os.listdir(here):  # noqa: PTH208 - of a descriptor
                if name.startswith(".") and name.endswith(_FRESH):
                    os.unlink(name, dir_fd=here)
        yield
    finally:
        os.close(lock)


@contextmanager
def edit_lock(directory: Path) -> Iterator[None]:
    """Edit files in the directory while no other process does; wait for one that is editing.

    Hold it for moments only; `lock` is the one for a process's life. Raises StateError.
    """
    with _explained(directory / "lock"), _opened(directory) as here:
        # The directory itself is the second lock: a command edits while the supervisor holds the first.
        fcntl.flock(here, fcntl.LOCK_EX)
        yield


def remove(path: Path) -> None:
    """Remove the file, which may be gone already. Raises StateError."""
    with _explained(path), _opened(path.parent) as directory:
        _discard(path.name, directory)
        os.fsync(directory)


def _open_lock(directory: int) -> int:
    try:
        return os.open("lock", os.O_RDWR | os.O_CREAT | _OPEN, 0o600, dir_fd=directory)
    except OSError as error:
        if error.errno != errno.EROFS:
            raise
        # A read-only volume with a saved account is enough to run.
        try:
            return os.open("lock", os.O_RDONLY | _OPEN, dir_fd=directory)
        except FileNotFoundError:
            raise error from None


@contextmanager
def _opened(directory: Path) -> Iterator[int]:
    if not directory.is_absolute():
        raise StateError(f"state directory {directory} is not an absolute path", "begin it with /")
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        raise StateError(f"{directory} does not exist", f"mount a volume at {directory}") from None
    except NotADirectoryError:
        what = "a symbolic link" if directory.is_symlink() else "not a directory"
        raise StateError(f"{directory} is {what}", f"mount a volume at {directory}") from None
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _discard(name: str, directory: int) -> None:
    with suppress(FileNotFoundError):
        os.unlink(name, dir_fd=directory)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise explained(error, path) from error


def explained(error: OSError, path: Path) -> StateError | BusyError:
    """Return the error for a failed operation on `path`, with what a person can do."""
    volume = path.parent
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT:
            return BusyError(f"no space left for {path}", "free space or inodes on the volume, then restart")
        case errno.EROFS:
            return StateError(f"{path}: the file system is read-only", f"mount a writable volume at {volume}")
        case errno.EACCES | errno.EPERM:
            return StateError(
                f"{path}: permission denied",
                f"make it writable for uid {os.geteuid()}: chown -R {os.geteuid()} on the volume at {volume}",
            )
        case errno.ELOOP:
            return StateError(f"{path} is a symbolic link", f"put the file itself on the volume at {volume}")
        case errno.EIO:
            return StateError(
                f"{path}: input/output error", "the disk may be failing: back up the volume first"
            )
        case _:
            return StateError(f"{path}: {error.strerror or error}")
