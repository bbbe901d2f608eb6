"""The far end, inside the emulated origin: sends, counts and echoes with as little processor time as it can.

`python -m bench.sink` prints "ready" and runs until it is killed. Bulk data comes from a memory file by
sendfile and is thrown away in the kernel (MSG_TRUNC, tcp(7)), so nothing is copied into this process.
"""

import os
import selectors
import socket
import struct
import threading
import time
from collections.abc import Callable

from bench.ports import BLOCK, BULK, COUNT, ECHO, SEND, SINK

COUNTED = struct.Struct("!Qdd")
"""What is answered to COUNT: bytes, and when the first and the last came (CLOCK_MONOTONIC)."""

ECHOES_AT_ONCE = 64


def memory_file() -> int:
    """Return a descriptor of BLOCK random bytes."""
    file = os.memfd_create("bulk")
    os.write(file, os.urandom(BLOCK))
    return file


def swallow(sock: socket.socket, buffer: bytearray) -> int:
    """Take what has arrived without copying it; return how much, 0 at the end."""
    return sock.recv_into(buffer, len(buffer), socket.MSG_TRUNC)


def bulk(sock: socket.socket, file: int) -> None:
    """Serve one bulk connection to its end."""
    with sock:
        kind = sock.recv(1)
        try:
            if kind == SEND:
                while True:
                    os.sendfile(sock.fileno(), file, 0, BLOCK)
            if kind == COUNT:
                sock.sendall(COUNTED.pack(*counted(sock)))
        except (BrokenPipeError, ConnectionResetError):
            return


def counted(sock: socket.socket) -> tuple[int, float, float]:
    """Return how many bytes came, and when the first and the last did."""
    buffer = bytearray(BLOCK)
    total = swallow(sock, buffer)
    first = last = time.monotonic()
    while got := swallow(sock, buffer):
        total += got
        last = time.monotonic()
    return total, first, last


def accept_bulk(listener: socket.socket) -> None:
    """Give every bulk connection a thread."""
    file = memory_file()
    while True:
        sock, _ = listener.accept()
        threading.Thread(target=bulk, args=(sock, file), daemon=True).start()


def echo(listener: socket.socket, datagrams: socket.socket) -> None:
    """Send back what comes, on any number of connections and by UDP."""
    loop = selectors.EpollSelector()

    def welcome() -> None:
        sock, _ = listener.accept()
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        loop.register(sock, selectors.EVENT_READ, lambda: back(sock))

    def back(sock: socket.socket) -> None:
        try:
            data = sock.recv(65536)
            if data:
                sock.sendall(data)
                return
        except ConnectionError:
            pass
        loop.unregister(sock)
        sock.close()

    def bounce() -> None:
        for _ in range(ECHOES_AT_ONCE):
            try:
                data, sender = datagrams.recvfrom(2048)
                datagrams.sendto(data, sender)
            except BlockingIOError:
                return

    loop.register(listener, selectors.EVENT_READ, welcome)
    loop.register(datagrams, selectors.EVENT_READ, bounce)
    while True:
        for key, _ in loop.select():
            act: Callable[[], None] = key.data
            act()


def listen(address: str) -> tuple[socket.socket, socket.socket, socket.socket]:
    """Return the sockets for bulk, echo by TCP and echo by UDP, at `address`."""
    # The backlog of a burst of 10,000 is ours to hold, not to drop.
    streams = [socket.create_server((address, port), backlog=4096) for port in (BULK, ECHO)]
    datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    datagrams.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    datagrams.bind((address, ECHO))
    return streams[0], streams[1], datagrams


def main() -> None:
    """Serve until killed."""
    bulks, echoes, datagrams = listen(SINK)
    threading.Thread(target=accept_bulk, args=(bulks,), daemon=True).start()
    print("ready", flush=True)
    echo(echoes, datagrams)


if __name__ == "__main__":
    main()
