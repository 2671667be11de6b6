"""Serve an exported network: ``python app.py --model-dir inference``.

``GET /`` is a page to drop photos on, ``POST /predict`` takes files, ``GET /health`` says whether it works,
and ``GET /docs`` describes all of it.
"""

from __future__ import annotations

import argparse
import asyncio
import html
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from batching import Batcher, Overloaded
from fastapi import APIRouter, FastAPI, File, Request, UploadFile
from fastapi.responses import HTMLResponse, JSONResponse, Response

from ppcls.deploy import Predictor
from ppcls.errors import PpclsError

PAGE = Path(__file__).with_name("page.html")
MEGABYTE = 1 << 20
LAST_SECONDS = 30  # how long requests that are under way may take after Ctrl-C or SIGTERM
router = APIRouter()


def create_app(
    predictor: Predictor,
    *,
    title: str = "ppcls",
    max_files: int = 32,
    max_megabytes: float = 32,
    **batching: Any,
) -> FastAPI:
    """Return the application.

    Args:
        predictor: with ``on_error="skip"``, so that one bad file does not take the others of its batch along.
        title: shown on the page.
        max_files: files in one request.
        max_megabytes: size of one request.
        **batching: options of :class:`batching.Batcher`.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.batcher = Batcher(predictor.predict, **batching)
        yield
        await asyncio.to_thread(app.state.batcher.close)

    app = FastAPI(title=title, lifespan=lifespan)
    app.state.title = title
    app.state.max_files = max_files
    app.state.max_megabytes = max_megabytes
    app.middleware("http")(_limit_size)
    app.add_exception_handler(Overloaded, _overloaded)
    app.add_exception_handler(PpclsError, _failed)
    app.include_router(router)
    return app


async def _limit_size(request: Request, call_next: Any) -> Response:
    """Refuse large requests before they are read."""
    most = request.app.state.max_megabytes
    if request.method == "POST":
        size = request.headers.get("content-length", "")
        # In chunks there may come more than Content-Length says.
        if not size.isdecimal() or "transfer-encoding" in request.headers:
            return _problem(411, "the request does not say its size (Content-Length)")
        if int(size) > most * MEGABYTE:
            return _problem(413, f"the request has more than {most:g} MB")
    response: Response = await call_next(request)
    return response


@router.get("/", response_class=HTMLResponse)
async def page(request: Request) -> str:
    """Return the page to drop photos on."""
    return PAGE.read_text(encoding="utf-8").replace("{{title}}", html.escape(request.app.state.title))


@router.get("/health")
async def health(request: Request) -> dict[str, Any]:
    """Return what the server has done so far."""
    batcher = request.app.state.batcher
    counts = {"images": batcher.images, "batches": batcher.batches}
    return {"status": "ok", "network": request.app.state.title, **counts}


@router.post("/predict")
async def predict(request: Request, files: Annotated[list[UploadFile], File()]) -> JSONResponse:
    """Classify image files; the results have the order of the files."""
    state = request.app.state
    if len(files) > state.max_files:
        return _problem(413, f"{len(files)} files in one request; at most {state.max_files}")
    waiting = [asyncio.wrap_future(state.batcher.submit(await file.read())) for file in files]
    results = await asyncio.gather(*waiting)
    named = [_named(result, file.filename or "") for result, file in zip(results, files, strict=True)]
    failed = all("error" in result for result in named)
    return JSONResponse({"results": named}, status_code=422 if failed else 200)


async def _overloaded(_: Request, error: Exception) -> JSONResponse:
    return _problem(503, str(error), {"Retry-After": "1"})


async def _failed(_: Request, error: Exception) -> JSONResponse:
    """Return an error of the network; one image that cannot be read is none."""
    return _problem(500, str(error))


def _problem(status: int, text: str, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"detail": text}, status_code=status, headers=headers)


def _named(result: dict[str, Any], name: str) -> dict[str, Any]:
    """Return a result with the name of the uploaded file, and with arrays as lists."""
    plain = {k: value.tolist() if isinstance(value, np.ndarray) else value for k, value in result.items()}
    if "error" in plain:  # it begins with the name in the batch
        plain["error"] = plain["error"].partition(": ")[2]
    return plain | {"file_name": name}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model-dir", required=True, help="folder of `ppcls export`, or its inference.onnx")
    parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0 to be reached from other machines")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--topk", type=int, help="classes in a result (default: as exported)")
    parser.add_argument("--threshold", type=float, help="below it the class is unknown")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--batch-size", type=int, default=16, help="largest batch")
    parser.add_argument("--wait", type=float, default=5.0, help="milliseconds that an image waits for others")
    parser.add_argument("--workers", type=int, default=2, help="threads that decode and predict")
    return parser.parse_args()


def main() -> None:
    """Serve until interrupted."""
    import uvicorn

    args = _arguments()
    predictor = Predictor(
        args.model_dir,
        batch_size=args.batch_size,
        device=args.device,
        on_error="skip",
        topk=args.topk,
        threshold=args.threshold,
    )
    app = create_app(
        predictor,
        title=Path(args.model_dir).resolve().name,
        max_batch=args.batch_size,
        max_wait=args.wait / 1000,
        workers=args.workers,
    )
    # Without a limit, one client that does not finish its request would keep the server from ending.
    uvicorn.run(app, host=args.host, port=args.port, timeout_graceful_shutdown=LAST_SECONDS)


if __name__ == "__main__":
    main()
