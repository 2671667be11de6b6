"""The first meeting of processes, here of threads: who does not come, and addresses that are taken."""

import contextlib
import socket
import struct
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from ppcls import rendezvous
from ppcls.errors import TrainingError
from ppcls.job import Job


@pytest.fixture
def port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def job(rank, size, port):
    endpoints = tuple(f"127.0.0.1:{7000 + number}" for number in range(size))
    return Job(rank, size, f"127.0.0.1:{port}", "PADDLE_MASTER", endpoints)


def together(calls):
    """Call all at once; return what each returned or raised."""

    def run(arguments):
        try:
            return rendezvous.meet(*arguments)
        except TrainingError as error:
            return str(error)

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(run, calls))


def test_all_learn_what_all_say(port):
    notes = [{"lr": 0.1}, ["text", None], "猫"]
    found = together([(job(rank, 3, port), note, 20) for rank, note in enumerate(notes)])
    assert found == [notes] * 3
    with socket.socket() as paddles:
        paddles.bind(("", port))  # which is free, also for who does not ask to reuse it


def test_large_notes_are_whole(port):
    notes = ["x" * 3_000_000, "y" * 5_000_000]
    assert together([(job(rank, 2, port), note, 20) for rank, note in enumerate(notes)]) == [notes] * 2


def test_processes_that_do_not_come_are_named_by_all_that_came(port):
    main, other = together([(job(0, 4, port), None, 1.5), (job(2, 4, port), None, 1.5)])
    expected = "process 1 (127.0.0.1:7001), process 3 (127.0.0.1:7003) of 4 did not start"
    assert main.startswith(expected)
    assert f"at 127.0.0.1:{port} (PADDLE_MASTER)" in main
    assert other == f"{main} (said by process 0)"


def test_a_crowd_that_does_not_come_is_counted(port):
    with pytest.raises(TrainingError, match=r"process 8 \(127.0.0.1:7008\) and 3 more of 12 did not"):
        rendezvous.meet(job(0, 12, port), None, 0.2)


def test_without_process_0_the_address_is_named(port):
    message = rf"process 1 of 2 does not find process 0 at 127.0.0.1:{port} \(PADDLE_MASTER\): Connection ref"
    with pytest.raises(TrainingError, match=message):
        rendezvous.meet(job(1, 2, port), None, 0.5)


def test_a_port_that_is_taken_is_named(port, monkeypatch):
    monkeypatch.setattr(rendezvous, "_PORT_WAIT", 0.2)
    with socket.socket() as other:
        other.bind(("", port))
        other.listen()
        with pytest.raises(
            TrainingError, match=rf"process 0 .*of 2: port {port} cannot be used \(Address already"
        ):
            rendezvous.meet(job(0, 2, port), None, 20)


def test_a_port_that_an_earlier_run_is_leaving_is_waited_for(port):
    other = socket.socket()
    other.bind(("", port))
    other.listen()
    threading.Timer(0.7, other.close).start()
    assert together([(job(rank, 2, port), rank, 20) for rank in range(2)]) == [[0, 1]] * 2


@pytest.mark.parametrize("says", [b"", b"SSH-2.0-OpenSSH_9.6 and much more\r\n", b"ppcls meeting 2\n"])
def test_a_stranger_at_the_address_is_sent_nothing(port, says, monkeypatch):
    """It may be the meeting place of a training that is going on."""
    monkeypatch.setattr(rendezvous, "_ANSWER", 0.2)
    received = []

    def serve(listener):
        with contextlib.suppress(OSError):
            while True:
                link, _ = listener.accept()
                with link:
                    link.sendall(says)
                    with contextlib.suppress(ConnectionResetError):  # it leaves what was said unread
                        received.append(link.recv(100))

    with socket.socket() as listener:
        listener.bind(("", port))
        listener.listen()
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        with pytest.raises(
            TrainingError, match="something answers there that is not process 0 of a training"
        ):
            rendezvous.meet(job(1, 2, port), None, 0.5)
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
    assert not b"".join(received)


def test_a_stranger_at_process_0_is_no_process(port, monkeypatch):
    monkeypatch.setattr(rendezvous, "_ANSWER", 0.3)

    def stranger(text):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5) as link:
            link.sendall(text)
            link.recv(100)

    with ThreadPoolExecutor(6) as pool:
        main = pool.submit(rendezvous.meet, job(0, 2, port), 0, 20)
        for text in (b"GET / HTTP/1.1\r\n\r\n", b"{}\n", b'{"rank": "x", "size": 2, "note": 1}\n', b""):
            pool.submit(stranger, text)
        assert pool.submit(rendezvous.meet, job(1, 2, port), 1, 20).result() == [0, 1]
        assert main.result() == [0, 1]


@pytest.mark.parametrize(("rank", "size"), [(0, 2), (2, 2), (-1, 2)])
def test_an_impossible_rank_ends_the_meeting(port, rank, size):
    main = together([(job(0, 2, port), 0, 5), (Job(rank or 7, size, f"127.0.0.1:{port}", "X"), 0, 1)])[0]
    assert f"two processes say that they are process {rank or 7} of 2" in main


def test_two_with_the_same_number_are_found(port):
    found = together([(job(rank, 3, port), None, 1) for rank in (0, 1, 1)])
    assert "two processes say that they are process 1 of 3 (PADDLE_TRAINER_ID)" in found[0]


def test_different_numbers_of_processes_are_found(port):
    found = together([(job(0, 2, port), None, 5), (job(1, 3, port), None, 1)])
    assert "process 1 was started as one of 3, process 0 as one of 2 (PADDLE_TRAINERS_NUM)" in found[0]


def test_a_process_that_left_has_to_come_again(port):
    def leave_and_return():
        with socket.create_connection(("127.0.0.1", port), timeout=5) as link:
            assert link.recv(100) == rendezvous._GREETING
            link.sendall(b'{"rank": 1, "size": 3, "note": "old"}\n')
            left.wait(0.3)  # process 0 has noted it
        left.set()
        return rendezvous.meet(job(1, 3, port), "new", 10)

    left = threading.Event()
    with ThreadPoolExecutor(3) as pool:
        main = pool.submit(rendezvous.meet, job(0, 3, port), 0, 20)
        again = pool.submit(retry, leave_and_return)
        left.wait(5)
        third = pool.submit(rendezvous.meet, job(2, 3, port), 2, 20)
        assert [x.result() for x in (main, again, third)] == [[0, "new", 2]] * 3


def retry(call):
    for _ in range(50):
        with contextlib.suppress(ConnectionRefusedError):
            return call()
        threading.Event().wait(0.05)
    raise AssertionError("nobody listened")


def test_who_is_waited_for_is_said_once(port, monkeypatch, caplog):
    monkeypatch.setattr(rendezvous, "_NOTICE", 0.5)  # who is early tries again after 0.2
    monkeypatch.setattr("ppcls.rendezvous._LOGGER.propagate", True)
    with caplog.at_level("INFO", "ppcls"):
        together([(job(0, 3, port), None, 1.5), (job(1, 3, port), None, 1.5)])
    assert [r.message for r in caplog.records] == ["waiting for process 2 (127.0.0.1:7002) of 3"]
    caplog.clear()
    with caplog.at_level("INFO", "ppcls"):
        together([(job(1, 2, port), None, 0.9)])
    assert len(caplog.records) == 1
    assert f"waiting for process 0 of 2 at 127.0.0.1:{port}: " in caplog.text


def test_nobody_listens_any_more_when_processes_are_let_go(port, monkeypatch):
    """Paddle connects them next, at the same address: it must not reach the socket of the meeting."""
    refused = []
    dismiss = rendezvous._dismiss

    def look_and_dismiss(link, answer):
        with socket.socket() as another:
            refused.append(another.connect_ex(("127.0.0.1", port)) != 0)
        dismiss(link, answer)

    monkeypatch.setattr(rendezvous, "_dismiss", look_and_dismiss)
    assert together([(job(rank, 3, port), rank, 20) for rank in range(3)]) == [[0, 1, 2]] * 3
    assert refused == [True, True]


@pytest.mark.parametrize("killed", [True, False])
def test_who_has_left_is_known_however_it_ended(killed):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        guest = socket.create_connection(listener.getsockname())
        with listener.accept()[0] as link:
            assert not rendezvous._has_left(link)
            if killed:  # the connection is reset, not closed
                guest.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            guest.close()
            assert rendezvous._has_left(link)
