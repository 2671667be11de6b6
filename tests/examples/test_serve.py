"""The serving example: batches of images that arrive one by one, and the web application around it."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[2] / "examples" / "serve"


@pytest.fixture(autouse=True)
def _example_is_importable(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(str(FOLDER))
    yield
    for name in ("app", "batching"):
        sys.modules.pop(name, None)


class Network:
    """Stands for a predictor: answers with what it got, and remembers its batches."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.may_go_on = threading.Event()
        self.may_go_on.set()

    def predict(self, images: Sequence[bytes]) -> list[dict[str, Any]]:
        self.may_go_on.wait(10)
        self.sizes.append(len(images))
        if b"break" in images:
            raise ValueError("broken")
        return [
            {"error": f"image {place}: is text", "class_ids": []}
            if image == b"bad"
            else {"got": image.decode()}
            for place, image in enumerate(images)
        ]


def test_everybody_gets_the_answer_to_their_own_image() -> None:
    from batching import Batcher

    network = Network()
    batcher = Batcher(network.predict, max_batch=8, max_wait=0.02, workers=2, max_waiting=500)
    images = [str(number).encode() for number in range(200)]
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda image: batcher.submit(image).result(10), images))
    assert [answer["got"].encode() for answer in answers] == images
    assert max(network.sizes) <= 8
    assert len(network.sizes) < 150  # not one by one
    assert batcher.images == 200
    batcher.close()


def test_an_error_belongs_to_its_image_alone() -> None:
    from batching import Batcher

    network = Network()
    batcher = Batcher(network.predict, max_batch=3, max_wait=10, workers=1)
    waiting = [batcher.submit(image) for image in (b"x", b"break", b"y")]
    assert [waiting[0].result(10), waiting[2].result(10)] == [{"got": "x"}, {"got": "y"}]
    with pytest.raises(ValueError, match="broken"):
        waiting[1].result(10)
    assert network.sizes == [3, 1, 1, 1]
    assert (batcher.batches, batcher.images) == (2, 2)
    batcher.close()


def test_an_error_belongs_to_its_batch_alone() -> None:
    from batching import Batcher, Overloaded

    network = Network()
    batcher = Batcher(network.predict, max_batch=1, workers=1, max_waiting=2)
    with pytest.raises(ValueError, match="broken"):
        batcher.submit(b"break").result(10)
    assert batcher.submit(b"x").result(10) == {"got": "x"}

    network.may_go_on.clear()
    waiting = [batcher.submit(b"1")]
    while len(waiting) < 3:
        try:
            waiting.append(batcher.submit(b"2"))
        except Overloaded:  # the thread has not taken the first one yet
            time.sleep(0.001)
    with pytest.raises(Overloaded, match="2 images are waiting"):
        batcher.submit(b"3")
    assert waiting[2].cancel()  # whoever does not wait any more costs nothing
    network.may_go_on.set()
    batcher.close()
    assert waiting[1].result(10) == {"got": "2"}
    assert network.sizes == [1, 1, 1, 1]
    with pytest.raises(Overloaded, match="ending"):
        batcher.submit(b"4")


def test_the_application() -> None:
    pytest.importorskip("fastapi", reason="examples/serve/requirements.txt")
    pytest.importorskip("httpx", reason="fastapi's test client needs it")
    from app import create_app
    from fastapi.testclient import TestClient

    network: Any = Network()
    with TestClient(create_app(network, title="<cats>", max_files=3, max_megabytes=0.01)) as client:

        def send(*contents: bytes) -> Any:
            files = [("files", (f"{number}.jpg", content)) for number, content in enumerate(contents)]
            return client.post("/predict", files=files)

        page = client.get("/").text
        assert "&lt;cats&gt;" in page
        assert "<cats>" not in page
        answer = send(b"x", b"bad", b"y")
        assert answer.status_code == 200
        first, second, third = answer.json()["results"]
        assert (first, third) == ({"got": "x", "file_name": "0.jpg"}, {"got": "y", "file_name": "2.jpg"})
        assert (second["error"], second["file_name"]) == ("is text", "1.jpg")
        assert send(b"bad").status_code == 422
        assert send(*[b"x"] * 4).status_code == 413
        assert send(b"x" * 20_000).status_code == 413
        assert client.post("/predict", content=iter([b"x"])).status_code == 411
        both = {"Content-Length": "1", "Transfer-Encoding": "chunked"}
        assert client.post("/predict", content=b"x", headers=both).status_code == 411
        assert client.post("/predict", files={"other": b"x"}).status_code == 422
        health = client.get("/health").json()
        assert (health["status"], health["network"], health["images"]) == ("ok", "<cats>", 4)


def test_a_client_that_stalls_does_not_keep_the_server_from_ending(monkeypatch: pytest.MonkeyPatch) -> None:
    uvicorn = pytest.importorskip("uvicorn", reason="examples/serve/requirements.txt")
    pytest.importorskip("fastapi", reason="examples/serve/requirements.txt")
    import app

    options: dict[str, Any] = {}
    monkeypatch.setattr(uvicorn, "run", lambda application, **given: options.update(given))
    monkeypatch.setattr(app, "Predictor", lambda *args, **options: Network())
    monkeypatch.setattr(sys, "argv", ["app.py", "--model-dir", "inference"])
    app.main()
    assert 0 < options["timeout_graceful_shutdown"] <= 30
