"""Servers that are broken or mean harm: a clear error in bounded time and space, and no password is shown."""

from __future__ import annotations

import base64
import contextlib
import io
import logging
import socket
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from downloads import CONTENT, files_in_cache

from ppcls.errors import WeightsError, mask_credentials
from ppcls.weights import fetch, find_file
from ppcls.weights.download import _Redirect, check_url
from ppcls.weights.pretrained import load_pretrained
from ppcls.weights.sources import cached_path

Answer = Callable[[socket.socket, bytes], None]
OK = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(CONTENT)


class RawServer:
    """Answers each connection with what a function writes to it, well-formed or not."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.requests: list[bytes] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:  # closed at the end of the test
                return
            threading.Thread(target=self._reply, args=(connection,), daemon=True).start()

    def _reply(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):  # the client may hang up
            request = connection.recv(65536)
            self.requests.append(request)
            self.answer(connection, request)

    def close(self) -> None:
        self._listener.close()

    def url(self, name: str = "tiny.pdparams", user: str = "") -> str:
        return f"http://{user}127.0.0.1:{self.port}/{name}"


@pytest.fixture
def serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Answer], RawServer]]:
    monkeypatch.setenv("PPCLS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    running: list[RawServer] = []

    def start(answer: Answer) -> RawServer:
        running.append(RawServer(answer))
        return running[-1]

    yield start
    for server in running:
        server.close()


def sends(*parts: bytes) -> Answer:
    def answer(connection: socket.socket, _: bytes) -> None:
        for part in parts:
            connection.sendall(part)

    return answer


def drips(first: bytes, rest: bytes) -> Answer:
    def answer(connection: socket.socket, _: bytes) -> None:
        connection.sendall(first)
        for byte in rest[:200]:
            connection.sendall(bytes([byte]))
            time.sleep(0.02)

    return answer


@pytest.mark.parametrize(
    ("first", "rest"),
    [
        (OK, CONTENT),
        (b"", OK),  # a header that comes byte by byte
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"0" * 200),  # the size of a chunk
        (b"HTTP/1.1 302 Found\r\nX: ", b"x" * 200),
    ],
)
def test_a_server_that_drips(serve: Callable[[Answer], RawServer], first: bytes, rest: bytes) -> None:
    server = serve(drips(first, rest))
    start = time.monotonic()
    with pytest.raises(
        WeightsError, match="cannot download .*: only .* bytes came in .* fewer than 1000 a second"
    ):
        fetch(server.url(), timeout=0.4)
    assert time.monotonic() - start < 10
    assert len(server.requests) == 2, "a slow server is tried twice, not four times"
    assert not cached_path(server.url()).exists()


def test_an_attempt_that_was_given_up_writes_nothing_more(serve: Callable[[Answer], RawServer]) -> None:
    late = threading.Event()

    def answer(connection: socket.socket, _: bytes) -> None:
        if len(server.requests) == 1:
            for byte in b"HTTP/1.1 200 OK\r\nX: " + b"x" * 40:
                connection.sendall(bytes([byte]))
                time.sleep(0.02)
            connection.sendall(b"\r\nContent-Length: 3\r\n\r\nbad")
            late.set()
        else:
            connection.sendall(OK + CONTENT[:1000])
            late.wait(5)
            time.sleep(0.05)
            connection.sendall(CONTENT[1000:])

    server = serve(answer)
    assert fetch(server.url(), timeout=0.4).read_bytes() == CONTENT


@pytest.mark.parametrize("announced", [True, False])
def test_a_file_without_end(serve: Callable[[Answer], RawServer], announced: bool) -> None:
    def answer(connection: socket.socket, _: bytes) -> None:
        length = b"Content-Length: 1000000000000\r\n" if announced else b""
        connection.sendall(b"HTTP/1.1 200 OK\r\n" + length + b"\r\n")
        while True:
            connection.sendall(bytes(1 << 16))

    server = serve(answer)
    with pytest.raises(
        WeightsError, match=r"sends \d+ bytes or more, and weights have at most 1000000\. Without"
    ):
        fetch(server.url(), max_bytes=1_000_000)
    assert files_in_cache(server.url()) == []
    assert len(server.requests) == 1


def test_a_disk_without_room(serve: Callable[[Answer], RawServer], monkeypatch: pytest.MonkeyPatch) -> None:
    server = serve(sends(OK, CONTENT))
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("ppcls.weights.download.shutil.disk_usage", lambda _: usage)
    with pytest.raises(WeightsError, match=rf"sends {len(CONTENT)} bytes, and .* has room for 1000"):
        fetch(server.url())


@pytest.mark.parametrize(
    "reply",
    [
        b"",
        b"\x00\xff" * 100,
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 \r\n\r\n",
        b"HTTP/9.9 abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 1000 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
        b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nContent-Length: \xb2\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nETag: \xff\x01\r\nContent-Length: 3\r\n\r\nabc",
        b"HTTP/1.1 206 Partial\r\nContent-Range: bytes x\r\nContent-Length: 3\r\n\r\nabc",
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 301 Moved\r\n\r\n",
        b"HTTP/1.1 404 \x1b[2J" + b"x" * 5000 + b"\r\n\r\n",
        b"HTTP/1.1 401 Unauthorized\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 3,
    ],
)
def test_replies_that_are_no_file(serve: Callable[[Answer], RawServer], reply: bytes) -> None:
    server = serve(sends(reply))
    with pytest.raises(WeightsError) as caught:
        fetch(server.url(), attempts=2, timeout=0.5)
    assert server.url() in str(caught.value)
    assert "\x1b" not in str(caught.value)
    assert len(str(caught.value)) < 1200
    assert not cached_path(server.url()).exists()


@pytest.mark.parametrize(
    "target",
    [
        "ftp://example.org/w.pdparams",
        "file:///etc/passwd",
        "data:text/plain,x",
        "gopher://example.org/",
        "http://[::1",
        "http://host:99999999/",
        "http://a\x01b/",
    ],
)
@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_redirects_to_other_things(serve: Callable[[Answer], RawServer], target: str, code: int) -> None:
    server = serve(sends(f"HTTP/1.1 {code} Moved\r\nLocation: {target}\r\n\r\n".encode()))
    with pytest.raises(WeightsError, match="cannot download|is not an address"):
        fetch(server.url(), attempts=1, timeout=1)
    assert len(server.requests) == 1


def test_redirects_are_followed_and_end(serve: Callable[[Answer], RawServer]) -> None:
    def answer(connection: socket.socket, request: bytes) -> None:
        if request.startswith(b"GET /tiny"):
            connection.sendall(b"HTTP/1.1 302 Found\r\nLocation: /there%20is it\r\n\r\n")
            with contextlib.suppress(OSError):
                while True:  # a body without end, which nobody reads
                    connection.sendall(bytes(1 << 16))
        connection.sendall(OK + CONTENT)

    server = serve(answer)
    assert fetch(server.url(), timeout=5).read_bytes() == CONTENT
    assert server.requests[1].startswith(b"GET /there%20is%20it HTTP/1.1")
    loop = serve(sends(b"HTTP/1.1 302 Found\r\nLocation: /tiny.pdparams\r\n\r\n"))
    with pytest.raises(WeightsError, match="cannot download"):
        fetch(loop.url(), timeout=5)
    assert len(loop.requests) <= 11


def _redirected(source: str, target: str) -> urllib.request.Request | None:
    request = urllib.request.Request(source, headers={"Range": "bytes=5-", "If-Range": '"1"'})
    return _Redirect().redirect_request(request, io.BytesIO(), 302, "Found", {}, target)


def test_no_way_back_from_https_to_http() -> None:
    with pytest.raises(WeightsError, match="redirects to http://example.org/w, and only https is followed"):
        _redirected("https://example.org/w", "http://example.org/w")
    for source, target in (("http://a.org/w", "https://b.org/w"), ("https://a.org/w", "https://b.org/w")):
        found = _redirected(source, target)
        assert found is not None
        assert found.full_url == target
        assert found.get_header("Range") == "bytes=5-"
        assert found.get_header("If-range") == '"1"'


# ---------------------------------------------------------------- addresses


@pytest.mark.parametrize(
    "url",
    [
        "http://",
        "http:///x.pdparams",
        "http:/host/x",
        "https:x",
        "http://[::1/x",
        "http://[zz]/x",
        "http://host:port/x",
        "http://host:99999/x",
        "http://host:0/x",
        "http://host:-1/x",
        "http://a b/x",
        "http://host/a b",
        "http://host/a\nb",
        "http://host/a\x00b",
        "http://host/\x7f",
        "http://" + "a" * 70 + ".org/x",
        "http://a..org/x",
        "ftp://host/x",
        "file:///etc/passwd",
        "data:,x",
        "://host",
        "",
    ],
)
def test_malformed_addresses(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PPCLS_HOME", str(tmp_path / "home"))
    with pytest.raises(
        WeightsError, match="is not an address that can be downloaded: expected http://host/path"
    ):
        fetch(url)
    assert not (tmp_path / "home").exists()


def test_addresses_of_other_kinds_are_no_files() -> None:
    for url in ("ftp://host/x", "file:///etc/passwd", "s3://bucket/x"):
        with pytest.raises(WeightsError, match="is not an address that can be downloaded"):
            load_pretrained(None, "resnet8", url)  # type: ignore[arg-type]
        with pytest.raises(WeightsError, match="is an address, and a file is expected here"):
            find_file(url, "Global.pretrained_model")


def test_addresses_in_any_script(serve: Callable[[Answer], RawServer]) -> None:
    check_url("http://例え.jp/模型.pdparams")
    check_url("http://[::1]:80/x?y=z#part")
    server = serve(sends(OK, CONTENT))
    assert fetch(server.url("模型/é%20a.pdparams?x=ü&y=%2F")).read_bytes() == CONTENT
    assert server.requests[0].startswith(
        b"GET /%E6%A8%A1%E5%9E%8B/%C3%A9%20a.pdparams?x=%C3%BC&y=%2F HTTP/1.1"
    )


@pytest.mark.parametrize("name", ["..", "a/..", ".", "%2e%2e", "x" * 5000, ""])
def test_names_that_lead_elsewhere(serve: Callable[[Answer], RawServer], name: str, tmp_path: Path) -> None:
    url = serve(sends(OK, CONTENT)).url(name)
    try:
        file = fetch(url, attempts=1)
    except WeightsError as error:
        assert "File name too long" in str(error)  # noqa: PT017 - either is fine
        return
    assert file.parent.parent == tmp_path / "home" / "weights"


# ---------------------------------------------------------------- passwords

SECRETS = ("user", "pa%20ss", "pa ss", "t0ken")


def test_name_and_password_are_sent_and_shown_nowhere(
    serve: Callable[[Answer], RawServer], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    server = serve(sends(OK, CONTENT))
    url = server.url("tiny.pdparams?access=t0ken", "user:pa%20ss@")
    assert fetch(url).read_bytes() == CONTENT
    assert b"GET /tiny.pdparams?access=t0ken HTTP/1.1" in server.requests[0]
    assert b"Authorization: Basic " + base64.b64encode(b"user:pa ss") in server.requests[0]
    assert b"@" not in server.requests[0]
    assert "127.0.0.1" in caplog.text
    assert not any(secret in caplog.text for secret in SECRETS)


@pytest.mark.parametrize(
    "reply",
    [
        b"HTTP/1.1 404 Not Found\r\n\r\n",
        b"HTTP/1.1 503 Busy\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc",
        b"HTTP/1.1 302 Found\r\nLocation: ftp://user:pa%20ss@host/x?k=t0ken\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: http://user:pa%20ss@127.0.0.1:1/x?k=t0ken\r\n\r\n",
        b"",
    ],
)
def test_failures_show_no_password(
    serve: Callable[[Answer], RawServer], reply: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    server = serve(sends(reply))
    url = server.url("tiny.pdparams?access=t0ken", "user:pa%20ss@")
    with pytest.raises(WeightsError) as caught:
        fetch(url, attempts=2, timeout=0.5)
    for text in (str(caught.value), caplog.text):
        assert not any(secret in text for secret in SECRETS), text
    assert "127.0.0.1" in str(caught.value)


def test_a_password_is_not_passed_on_to_another_host(serve: Callable[[Answer], RawServer]) -> None:
    other = serve(sends(OK, CONTENT))
    server = serve(sends(f"HTTP/1.1 302 Found\r\nLocation: {other.url()}\r\n\r\n".encode()))
    assert fetch(server.url(user="user:secret@")).read_bytes() == CONTENT
    assert b"Authorization" in server.requests[0]
    assert b"Authorization" not in other.requests[0]


@pytest.mark.parametrize(
    "url",
    [
        "http://user:pa ss@host/x",
        "http://user:pa/ss@host/x",
        "http://user:pa#ss@host/x",
        "http://user:pa?ss@host/x",
        "http://user:pa@ss@host:port/x",
        "http://user:pass@[::1/x",
        "ftp://user:pass@host/x",
    ],
)
def test_malformed_addresses_show_no_password(url: str) -> None:
    with pytest.raises(WeightsError) as caught:
        fetch(url)
    assert not any(part in str(caught.value) for part in ("user", "pa ss", "pa/ss", "ss@", "pass"))


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("a https://user:pass@host/x?y=1&z=2: no", "a https://***@host/x?***: no"),
        ("a 'http://tok@host/x', b", "a 'http://***@host/x', b"),
        ("url: https://host/x?sig=a%3D#part", "url: https://host/x?***"),
        ("https://host/x@2x.png?", "https://host/x@2x.png?"),
        ("mail a@b.c, path a/b?c", "mail a@b.c, path a/b?c"),
        ("http://a:b@c/ http://d:e@f/?g=h", "http://***@c/ http://***@f/?***"),
        ("S3://key:secret@bucket/x", "S3://***@bucket/x"),
    ],
)
def test_masking(text: str, masked: str) -> None:
    assert mask_credentials(text) == masked
    assert str(WeightsError(text)) == masked
