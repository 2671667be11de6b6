"""A connection of all processes for facts that every process must know before the next operation.

Such facts are small and on the host: which parameters have a gradient, and whether a process was asked to
stop. Sent as tensors, they would have to be read back from the device, which stops a GPU until all its work
is done. Paddle's store needs about 40 ms for a request (its small packets wait for each other), which is too
slow for every step. So each process has one connection to process 0, which answers with the facts of all.
"""

from __future__ import annotations

import hmac
import ipaddress
import secrets
import select
import selectors
import socket
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from typing import Protocol

_PATIENCE = 60.0  # seconds to wait for the other processes, which have just done something together
_RANK_BYTES = 4
_TOKEN_BYTES = 16
_GREETING_BYTES = _TOKEN_BYTES + _RANK_BYTES
# A machine that is lost sends nothing. These options of Linux find that after about 30 s: the first three
# while this process waits, the last one (in milliseconds) when it has just sent something.
_PROBES = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 4, "TCP_USER_TIMEOUT": 30_000}


class Store(Protocol):
    """What is needed of Paddle's store."""

    def set(self, key: str, value: str) -> None:
        """Set the value of a key."""

    def get(self, key: str) -> bytes:
        """Return the value of a key; wait until it is set."""


class Channel:
    """The connections of one process: process 0 has one to each of the others, which have one to it.

    Args:
        links: the connections.
        is_hub: whether this is process 0.
    """

    def __init__(self, links: Sequence[socket.socket], *, is_hub: bool) -> None:
        self._links = list(links)
        self._is_hub = is_hub
        for link in self._links:
            link.settimeout(None)
            link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            link.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for name, value in _PROBES.items():
                if hasattr(socket, name):
                    link.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)

    def any_of(self, facts: Sequence[bool]) -> list[bool]:
        """Return for each fact whether it holds in any process; wait for all processes, without a limit.

        Args:
            facts: equally many, in the same order, in every process.

        Raises:
            OSError: if another process has ended.
        """
        size = -(-len(facts) // 8)
        bits = sum(1 << place for place, fact in enumerate(facts) if fact)
        if self._is_hub:
            for link in self._links:
                bits |= int.from_bytes(_receive(link, size), "little")
        for link in self._links:
            link.sendall(bits.to_bytes(size, "little"))
        if not self._is_hub:
            bits = int.from_bytes(_receive(self._links[0], size), "little")
        return [bool(bits >> place & 1) for place in range(len(facts))]

    def wait_for_hub(self) -> None:
        """Wait until process 0 calls this, too, without a limit; process 0 does not wait.

        Raises:
            OSError: if process 0 has ended; in process 0, if another one has.
        """
        for link in self._links:
            if self._is_hub:
                link.sendall(b"\1")
            else:
                _receive(link, 1)

    def is_broken(self) -> bool:
        """Tell whether a process at the other end of a connection has ended or cannot be reached any more.

        It reads nothing, so another thread may ask it. Outside Linux it always returns false.
        """
        if not hasattr(select, "POLLRDHUP"):
            return False
        poll = select.poll()
        for link in self._links:
            poll.register(link, select.POLLRDHUP)  # and, always, errors
        return bool(poll.poll(0))

    def close(self) -> None:
        """Close the connections."""
        for link in self._links:
            link.close()


def open_channel(store: Store, key: str, rank: int, size: int, host: str) -> Channel:
    """Connect all processes.

    Args:
        store: tells the others where process 0 listens.
        key: a key of the store that is not in use.
        rank: index of this process.
        size: number of processes.
        host: address of the machine of process 0.

    Raises:
        OSError: if a process does not come.
    """
    if rank == 0:
        return Channel(_wait_for_others(store, key, size, host), is_hub=True)
    port, token = store.get(key).decode().split()
    link = socket.create_connection((host, int(port)), timeout=_PATIENCE)
    link.sendall(bytes.fromhex(token) + rank.to_bytes(_RANK_BYTES, "little"))
    return Channel([link], is_hub=False)


def _wait_for_others(store: Store, key: str, size: int, host: str) -> list[socket.socket]:
    """Return a connection to each of the other processes; whoever does not send the token is ignored."""
    token = secrets.token_bytes(_TOKEN_BYTES)
    end = time.monotonic() + _PATIENCE
    links: dict[int, socket.socket] = {}
    with ExitStack() as strangers, selectors.DefaultSelector() as selector:
        listener = strangers.enter_context(socket.socket())
        _bind(listener, host)
        listener.listen(size)
        listener.setblocking(False)
        selector.register(listener, selectors.EVENT_READ)
        store.set(key, f"{listener.getsockname()[1]} {token.hex()}")
        while len(links) < size - 1:
            left = end - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"{size - 1 - len(links)} of {size} processes did not connect")
            # Connections are read in any order: one that sends nothing does not delay the others.
            for ready, _ in selector.select(left):
                if ready.fileobj is listener:
                    with suppress(OSError):  # already gone
                        link = listener.accept()[0]
                        link.setblocking(False)
                        selector.register(link, selectors.EVENT_READ, (link, bytearray()))
                        strangers.enter_context(link)
                    continue
                link, said = ready.data
                if _read_greeting(link, said):
                    continue
                selector.unregister(link)
                rank = int.from_bytes(said[_TOKEN_BYTES:], "little")
                known = len(said) == _GREETING_BYTES and hmac.compare_digest(said[:_TOKEN_BYTES], token)
                if known and 0 < rank < size:
                    links[rank] = link.dup()  # the socket itself is closed with those of strangers
                link.close()
    return list(links.values())


def _bind(listener: socket.socket, host: str) -> None:
    """Listen only at the address that the other processes use, if it is one of this machine."""
    try:
        # A name may stand for another address on this machine than on the others.
        listener.bind((str(ipaddress.IPv4Address(host)), 0))
    except (ValueError, OSError):
        listener.bind(("", 0))


def _read_greeting(link: socket.socket, said: bytearray) -> bool:
    """Add to `said` what a connection sent; return whether more has to come."""
    try:
        block = link.recv(_GREETING_BYTES - len(said))
    except BlockingIOError:
        return True
    except OSError:
        return False
    said += block
    return bool(block) and len(said) < _GREETING_BYTES


def _receive(link: socket.socket, size: int) -> bytes:
    received = bytearray()
    while len(received) < size:
        block = link.recv(size - len(received))
        if not block:
            raise ConnectionError("the connection was closed")
        received += block
    return bytes(received)
