"""Downloads end in the right file or in a clear error, and never in a broken cache."""

from __future__ import annotations

import hashlib
import http.server
import io
import multiprocessing
import os
import pickle
import pwd
import stat
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from downloads import CONTENT, files_in_cache
from safetensors.numpy import save
from torch_reference import CLASSES, rows, weights_for

from ppcls import create_model
from ppcls.errors import ConfigError, WeightsError
from ppcls.weights import download, fetch, official_url, read_params
from ppcls.weights.sources import cache_folder, cached_path


class Server(http.server.ThreadingHTTPServer):
    """Serves CONTENT, and misbehaves as its attributes say."""

    daemon_threads = True
    failures = 0  # how many requests are still to fail
    how = "break"
    status = 200
    content = CONTENT
    etag = '"1"'
    ranges = True
    length: int | None = 0  # what Content-Length differs by; None leaves it out
    silent = 0.0  # seconds without an answer
    log: list[str | None]

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # clients that give up are part of these tests


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server, wanted = self.server, self.headers.get("Range")
        server.log.append(wanted)
        time.sleep(server.silent)
        if server.status != 200:
            self.send_error(server.status)
            return
        start = 0
        if wanted and server.ranges and self.headers.get("If-Range") == server.etag:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
        body = server.content[start:]
        self.send_response(206 if start else 200)
        self.send_header("ETag", server.etag)
        if server.length is not None:
            self.send_header("Content-Length", str(len(body) + server.length))
        if start:
            self.send_header(
                "Content-Range", f"bytes {start}-{len(server.content) - 1}/{len(server.content)}"
            )
        self.end_headers()
        if server.failures:
            server.failures -= 1
            self.wfile.write(body[: len(body) // 2])
            self.wfile.flush()
            if server.how == "stall":
                time.sleep(1.5)
            return
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("PPCLS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server(("127.0.0.1", 0), Handler) as running:
        running.log = []
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.shutdown()


def url_of(server: Server, name: str = "tiny.pdparams") -> str:
    return f"http://127.0.0.1:{server.server_port}/{name}"


def test_a_good_download_happens_once(server: Server) -> None:
    url = url_of(server)
    file = fetch(url)
    assert file.read_bytes() == CONTENT
    assert fetch(url) == file
    assert server.log == [None]
    assert files_in_cache(url) == ["tiny.pdparams"]
    np.testing.assert_array_equal(read_params(file)["w"], np.arange(50_000))


def test_equal_names_of_different_hosts_are_different_files(server: Server) -> None:
    assert cached_path(url_of(server)) != cached_path("http://example.org/tiny.pdparams")


@pytest.mark.parametrize("how", ["break", "stall"])
def test_a_broken_transfer_goes_on_where_it_stopped(server: Server, how: str) -> None:
    server.failures, server.how = 2, how
    assert fetch(url_of(server), timeout=0.3).read_bytes() == CONTENT
    assert server.log[0] is None
    assert [r is not None for r in server.log] == [False, True, True]


def test_it_goes_on_in_a_later_run(server: Server) -> None:
    server.failures = 1
    with pytest.raises(WeightsError, match="ended after"):
        fetch(url_of(server), attempts=1)
    assert fetch(url_of(server)).read_bytes() == CONTENT
    assert server.log[1] == f"bytes={len(CONTENT) // 2}-"


def test_a_file_that_changed_meanwhile_is_fetched_anew(server: Server) -> None:
    server.failures = 1
    with pytest.raises(WeightsError):
        fetch(url_of(server), attempts=1)
    server.etag = '"2"'
    server.content = pickle.dumps({"v": np.zeros(60_000)}, protocol=4)
    assert list(read_params(fetch(url_of(server)))) == ["v"]


def test_a_server_without_ranges(server: Server) -> None:
    server.failures, server.ranges = 1, False
    assert fetch(url_of(server), timeout=0.3).read_bytes() == CONTENT


@pytest.mark.parametrize("how", ["break", "stall"])
def test_giving_up_says_url_and_place(server: Server, how: str) -> None:
    server.failures, server.how = 99, how
    url = url_of(server)
    with pytest.raises(WeightsError) as caught:
        fetch(url, attempts=2, timeout=0.3)
    assert url in str(caught.value)
    assert str(cached_path(url)) in str(caught.value)
    assert not cached_path(url).exists()


def test_not_found_is_not_tried_again(server: Server) -> None:
    server.status = 404
    with pytest.raises(WeightsError, match=r"tiny\.pdparams: the server answered 404"):
        fetch(url_of(server))
    assert len(server.log) == 1
    server.status = 200
    assert fetch(url_of(server)).is_file()


def test_a_busy_server_is_tried_again(server: Server) -> None:
    server.status = 503
    with pytest.raises(WeightsError, match="503"):
        fetch(url_of(server), attempts=3, timeout=1)
    assert len(server.log) == 3


def test_a_wrong_file_does_not_enter_the_cache(server: Server) -> None:
    server.content = b"<html>please log in</html>"
    url = url_of(server)
    with pytest.raises(WeightsError, match="did not send a weights file"):
        fetch(url)
    assert files_in_cache(url) == []


def test_a_server_that_never_answers(server: Server) -> None:
    server.silent = 1.0
    url = url_of(server)
    with pytest.raises(WeightsError, match="timed out"):
        fetch(url, attempts=2, timeout=0.2)
    assert files_in_cache(url) == []


def test_fewer_bytes_than_announced(server: Server) -> None:
    server.length = 10
    url = url_of(server)
    with pytest.raises(WeightsError, match=f"ended after {len(CONTENT)} of {len(CONTENT) + 10} bytes"):
        fetch(url, attempts=1, timeout=0.3)
    assert not cached_path(url).exists()
    server.length = 0
    server.etag = '"2"'
    assert fetch(url, timeout=0.3).read_bytes() == CONTENT


@pytest.mark.parametrize("length", [-7, None])
def test_a_cut_file_that_nobody_announced(server: Server, length: int | None) -> None:
    server.length = length
    server.content = CONTENT if length else CONTENT[:-7]
    url = url_of(server)
    with pytest.raises(WeightsError, match="did not send a weights file: .*not a complete weights file"):
        fetch(url)
    assert files_in_cache(url) == []


def test_a_name_with_a_hash_is_held_to_it(server: Server) -> None:
    server.content = (Path(__file__).parent / "data" / "torch_zip.pth").read_bytes()
    right = hashlib.sha256(server.content).hexdigest()
    assert len(read_params(fetch(url_of(server, f"net-{right[:8]}.pth")))) == 14
    url = url_of(server, "net-0123abcd.pth")
    with pytest.raises(WeightsError, match=f"SHA-256 is {right[:16]}.*its name says 0123abcd"):
        fetch(url)
    assert files_in_cache(url) == []


def test_a_date_in_a_name_is_no_hash(server: Server) -> None:
    server.content = (Path(__file__).parent / "data" / "torch_zip.pth").read_bytes()
    assert len(read_params(fetch(url_of(server, "net-20240115.pth")))) == 14


def test_pytorch_weights_from_an_address(server: Server) -> None:
    shapes = next(row["shapes"] for row in rows() if row["ours"] == "MobileNetV2")
    server.content = save(weights_for(shapes), metadata={"format": "pt"})
    net = create_model("MobileNetV2", class_num=CLASSES, pretrained=url_of(server, "model.safetensors"))
    stem = "features.0.0.weight" if "features.0.0.weight" in shapes else "conv_stem.weight"
    np.testing.assert_array_equal(net.conv1._conv.weight.numpy(), weights_for(shapes)[stem])


def test_no_network_says_where_to_put_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PPCLS_HOME", str(tmp_path))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    url = "http://127.0.0.1:9/x.pdparams"
    with pytest.raises(
        WeightsError, match=r"(?s)http://127\.0\.0\.1:9/x\.pdparams.*put the file at .*PPCLS_HOME"
    ):
        fetch(url, attempts=2, timeout=1)
    cached_path(url).write_bytes(CONTENT)
    assert fetch(url) == cached_path(url)


def test_a_cache_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PPCLS_HOME", str(tmp_path / "file"))
    with pytest.raises(WeightsError, match="cannot keep"):
        fetch("http://127.0.0.1:9/x.pdparams")


@pytest.mark.parametrize("home", [None, "~/cache"])
def test_the_cache_of_a_user_without_a_home(
    home: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(uid: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.delenv("PPCLS_HOME", raising=False)
    if home is not None:
        monkeypatch.setenv("PPCLS_HOME", home)
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    folder = tmp_path / f"ppcls-{os.getuid()}"
    assert cache_folder("lists") == folder / "lists"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    other = os.getuid() + 1
    monkeypatch.setattr(os, "getuid", lambda: other)
    folder.rename(tmp_path / f"ppcls-{other}")
    with pytest.raises(WeightsError, match="belongs to another user; set PPCLS_HOME"):
        cache_folder("lists")


def test_a_cache_in_the_home_of_an_unknown_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PPCLS_HOME", "~nobody-of-this-name/cache")
    with pytest.raises(WeightsError, match="PPCLS_HOME: ~nobody-of-this-name/cache begins with"):
        cache_folder()


def test_one_process_downloads_for_all(server: Server) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=fetch, args=(url_of(server),)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert server.log == [None]
    assert fetch(url_of(server)).read_bytes() == CONTENT


def test_a_transfer_that_becomes_slow_is_noticed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seconds = 0.0
    attempt = download._Attempt("http://host/x", tmp_path / "x", timeout=1, max_bytes=1)

    class Worker:
        def is_alive(self) -> bool:
            return seconds < 60

        def join(self, wait: float) -> None:
            nonlocal seconds
            seconds += wait
            attempt.received = 1_000_000_000  # at once, and nothing after that

    monkeypatch.setattr(download, "time", SimpleNamespace(monotonic=lambda: seconds))
    with pytest.raises(download.SlowError, match="only 0 bytes came in"):
        attempt.watch(Worker())  # type: ignore[arg-type]
    assert seconds < 10


def test_the_progress_bar_counts_every_byte_once(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    bars = []

    def bar(total: int, initial: int, **_: Any) -> download.tqdm:
        bars.append(download_bar(total=total, initial=initial, file=io.StringIO()))
        return bars[-1]

    download_bar = download.tqdm
    monkeypatch.setattr(download, "tqdm", bar)
    server.failures = 1
    fetch(url_of(server), timeout=0.3)
    half = len(CONTENT) // 2
    assert [(bar.initial, bar.n, bar.total) for bar in bars] == [
        (0, half, len(CONTENT)),
        (half, len(CONTENT), len(CONTENT)),
    ]


@pytest.mark.parametrize(
    ("url", "sent"),
    [
        ("http://[::1]/x", "http://[::1]/x"),
        ("https://me:secret@[::1]:8080/x?y=z#part", "https://[::1]:8080/x?y=z"),
        ("http://host:81/a%20b?c=d?e", "http://host:81/a%20b?c=d?e"),
    ],
)
def test_the_address_that_is_asked_for(url: str, sent: str) -> None:
    assert download._request(url).full_url == sent


def test_what_a_server_says_is_shown_without_control_characters() -> None:
    assert download._printable("\x1b[2Jnot\nhere ") == "[2Jnot here"
    assert download._printable("x" * 500) == "x" * 200


def test_official_addresses() -> None:
    plain = official_url("ResNet50_vd")
    assert plain.endswith("/ResNet50_vd_pretrained.pdparams")
    assert official_url("ResNet50_vd", use_ssld=True) == plain.replace("_pretrained", "_ssld_pretrained")
    assert official_url("PPHGNetV2_B0", use_ssld=True).endswith("/PPHGNetV2_B0_ssld_pretrained.pdparams")
    assert cached_path(official_url("ResNet50_vd", True)).name == "ResNet50_vd_ssld_pretrained.pdparams"
    assert cached_path(plain).parent.name == "weights"


@pytest.mark.parametrize("variant", ["ssld", "ssld_stage1", "22k", "22kto1k"])
def test_addresses_of_variants(variant: str) -> None:
    for name in ("ResNet50_vd", "PPHGNetV2_B0"):
        url = official_url(name, variant=variant)
        assert url.endswith(f"/{name}_{variant}_pretrained.pdparams")
        assert cached_path(url) == cached_path(official_url(name)).with_name(url.rpartition("/")[2])
    assert official_url("ResNet50_vd", variant="ssld") == official_url("ResNet50_vd", use_ssld=True)


def test_options_choose_the_variant(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def refuse(url: str) -> Path:
        asked.append(url.rpartition("/")[2])
        raise WeightsError("offline")

    monkeypatch.setattr("ppcls.weights.pretrained.fetch", refuse)
    for options in (
        {"use_ssld": True},
        {"use_ssld_stage1_pretrained": True},
        {"use_ssld": True, "use_ssld_stage1_pretrained": True},
        {"use_imagenet22k_pretrained": True},
        {"use_imagenet22kto1k_pretrained": True},
    ):
        with pytest.raises(WeightsError, match="offline"):
            create_model("PPLCNet_x0_25", pretrained=True, **options)
    names = ["ssld", "ssld_stage1", "ssld_stage1", "22k", "22kto1k"]
    assert asked == [f"PPLCNet_x0_25_{name}_pretrained.pdparams" for name in names]
    with pytest.raises(ConfigError, match="use_ssld and use_imagenet22k_pretrained name different weights"):
        create_model("PPLCNet_x0_25", use_ssld=True, use_imagenet22k_pretrained=True)
