"""The connection of all processes for facts, with threads as processes."""

import contextlib
import select
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from ppcls import channel
from ppcls.channel import open_channel


class Store:
    """A stand-in for Paddle's store: a process waits for what another one sets."""

    def __init__(self):
        self.values = {}
        self.there = threading.Event()

    def set(self, key, value):
        self.values[key] = value.encode()
        self.there.set()

    def get(self, key):
        assert self.there.wait(10)
        return self.values[key]


def in_processes(size, work, store=None):
    """Call ``work(rank, link)`` in `size` connected threads; return the results in order of rank."""
    store = store or Store()

    def live(rank):
        link = open_channel(store, "key", rank, size, "127.0.0.1")
        try:
            return work(rank, link)
        finally:
            link.close()

    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(live, range(size)))


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("count", [1, 8, 9, 100])
def test_every_process_learns_what_holds_anywhere(size, count):
    rounds = 5
    facts = [
        [[(7 * r + 3 * rank + n) % (4 + rank) == 0 for n in range(count)] for rank in range(size)]
        for r in range(rounds)
    ]
    found = in_processes(size, lambda rank, link: [link.any_of(facts[r][rank]) for r in range(rounds)])
    expected = [[any(column) for column in zip(*of_round, strict=True)] for of_round in facts]
    assert found == [expected] * size


@pytest.mark.parametrize("ends", [0, 1, 2])
def test_a_process_that_has_ended_is_noticed(ends):
    def work(rank, link):
        link.any_of([True])
        if rank == ends:
            return "ended"
        try:
            while True:
                link.any_of([False])
        except OSError:
            return "noticed"

    found = in_processes(3, work)
    assert found == ["ended" if rank == ends else "noticed" for rank in range(3)]


def test_the_others_wait_for_process_0_which_does_not_wait():
    release = threading.Event()

    def work(rank, link):
        if rank == 0:
            link.wait_for_hub()
            link.wait_for_hub()
            release.set()
            return link.any_of([False])
        assert release.wait(10)  # process 0 was not held up
        link.wait_for_hub()
        link.wait_for_hub()
        return link.any_of([rank == 2])

    assert in_processes(3, work) == [[True]] * 3


@pytest.mark.skipif(not hasattr(select, "POLLRDHUP"), reason="Linux only")
@pytest.mark.parametrize("ends", [0, 1])
def test_another_thread_sees_that_a_process_has_ended(ends):
    """Without taking anything from what is still to be read."""
    ended = threading.Event()

    def work(rank, link):
        link.any_of([True])
        if rank == ends:
            assert not link.is_broken()
            link.wait_for_hub() if rank == 0 else None
            link.close()
            ended.set()
            return None
        assert ended.wait(10)
        end = time.monotonic() + 10
        while not link.is_broken():
            assert time.monotonic() < end
        if ends == 0:
            link.wait_for_hub()  # it had been sent before
        with pytest.raises(ConnectionError):
            link.any_of([False])
        return True

    assert in_processes(2, work)[1 - ends]


@pytest.mark.parametrize("late", [0, 1])
def test_a_late_process_is_waited_for(monkeypatch, late):
    """The limit is for the start alone: a step may take one process much longer than another."""
    monkeypatch.setattr(channel, "_PATIENCE", 0.3)

    def work(rank, link):
        if rank == late:
            time.sleep(0.8)
        return link.any_of([rank == 1])

    assert in_processes(2, work) == [[True]] * 2


@pytest.mark.parametrize(
    "said",
    [
        [b""],
        [b"GET / HTTP/1.1\r\n\r\n" + b"x" * 20],
        [bytes(channel._GREETING_BYTES)],
        [None] * 5,
        [b"half", b"half"],
        ["rank 0", "rank 9"],
    ],
    ids=["leaves", "asks", "wrong token", "silent", "half", "wrong rank"],
)
def test_other_programs_that_connect_are_ignored_and_delay_nothing(said):
    """None stays connected without a word; a rank comes with the right token."""
    store = Store()
    strangers = []

    class Curious(Store):
        def get(self, key):
            value = store.get(key)
            port, token = value.decode().split()
            for text in said:
                stranger = socket.create_connection(("127.0.0.1", int(port)))
                strangers.append(stranger)
                if isinstance(text, str):
                    stranger.sendall(bytes.fromhex(token) + bytes([int(text[-1]), 0, 0, 0]))
                elif text is not None:
                    stranger.sendall(text)
                    if not text:
                        stranger.close()
            return value

        def set(self, key, value):
            store.set(key, value)

    begin = time.monotonic()
    assert in_processes(2, lambda rank, link: link.any_of([rank == 1]), Curious()) == [[True]] * 2
    assert time.monotonic() - begin < 5
    for stranger in strangers:
        stranger.close()


def test_a_process_that_does_not_connect_is_not_waited_for_forever(monkeypatch):
    """Not even while others connect all the time."""
    monkeypatch.setattr(channel, "_PATIENCE", 0.5)
    ended = threading.Event()

    class Disturbed(Store):
        def set(self, key, value):
            port = int(value.split()[0])

            def disturb():
                while not ended.wait(0.02):
                    with contextlib.suppress(OSError):
                        socket.create_connection(("127.0.0.1", port)).close()

            threading.Thread(target=disturb).start()

    try:
        with pytest.raises(TimeoutError, match="2 of 3 processes did not connect"):
            open_channel(Disturbed(), "key", 0, 3, "127.0.0.1")
    finally:
        ended.set()


@pytest.mark.parametrize(
    ("host", "address"), [("127.0.0.1", "127.0.0.1"), ("localhost", "0.0.0.0"), ("192.0.2.1", "0.0.0.0")]
)
def test_only_the_address_of_the_processes_is_listened_at(monkeypatch, host, address):
    """A name, or an address that this machine does not have, says nothing about its own addresses."""
    found = []

    class Listening(socket.socket):
        def listen(self, *backlog):
            super().listen(*backlog)
            found.append(self.getsockname()[0])

    monkeypatch.setattr(channel.socket, "socket", Listening)
    monkeypatch.setattr(channel, "_PATIENCE", 0.01)
    with pytest.raises(TimeoutError):
        open_channel(Store(), "key", 0, 2, host)
    assert found == [address]
