"""Download one file over HTTP, with a size limit and a lowest rate, whatever the server answers."""

from __future__ import annotations

import base64
import http.client
import io
import ipaddress
import re
import shutil
import ssl
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote, unquote, urlsplit

from tqdm import tqdm

from ppcls.errors import WeightsError

# The largest official weights have 3.4 GB.
MAX_BYTES = 16 << 30
# Bytes per second, averaged over the timeout of a transfer.
LOWEST_RATE = 1000
_CHUNK = 1 << 20
_SAFE = "/%:@!$&'()*+,;=~-._"  # characters that need no escape in the path of an address
_TRANSIENT = (408, 429)


class RetryError(Exception):
    """The download was interrupted, and another attempt may succeed."""


class SlowError(RetryError):
    """The server sends hardly anything."""


def check_url(url: str) -> None:
    """Check that an address is one that can be downloaded.

    Raises:
        WeightsError: if it is not http or https, has no host, an impossible port, spaces or control
            characters.
    """
    try:
        parts = urlsplit(url)
        host = (parts.hostname or "").encode("idna")
        if "[" in parts.netloc:  # Python 3.10 accepts anything in the brackets
            ipaddress.IPv6Address(parts.hostname or "")
        fits = parts.scheme in ("http", "https") and bool(host) and parts.port != 0
    except ValueError:
        fits = False
    if not fits or any(ord(letter) <= 32 or ord(letter) == 127 for letter in url):
        shown = re.sub(r"://.*@", "://***@", url, flags=re.DOTALL)  # it is unknown where the password ends
        raise WeightsError(
            f"{shown[:200]!r} is not an address that can be downloaded: expected http://host/path or "
            "https://host/path, with %20 for a space"
        )


def transfer(url: str, part: Path, timeout: float, max_bytes: int = MAX_BYTES) -> None:
    """Complete the file `part`, continuing after its present content if the server's file is unchanged.

    Args:
        url: an address that :func:`check_url` accepts.
        part: the unfinished file; a second file next to it holds the tag of the server's version.
        timeout: seconds without a single byte after which the server counts as stalled.
        max_bytes: the largest file that is accepted.

    Raises:
        RetryError: if the transfer broke off, stalled or was too slow.
        WeightsError: if another attempt would fail in the same way.
        OSError: if `part` cannot be written.
    """
    attempt = _Attempt(url, part, timeout, max_bytes)
    worker = threading.Thread(target=attempt.run, name="download", daemon=True)
    worker.start()
    attempt.watch(worker)


def _printable(text: str) -> str:
    """Return a server's text, shortened and without control characters of a terminal."""
    return "".join(letter if letter.isprintable() else " " for letter in text[:200]).strip()


def tag_file(part: Path) -> Path:
    """Return the path of the server's tag of an unfinished file."""
    return part.with_name(f"{part.name}.tag")


class _Attempt:
    """One attempt, made in a thread because a server may send even its headers one byte per minute.

    Attributes:
        received: number of bytes so far.
        problem: the error that ended the attempt.
    """

    def __init__(self, url: str, part: Path, timeout: float, max_bytes: int) -> None:
        self.url = url
        self.part = part
        self.timeout = timeout
        self.max_bytes = max_bytes
        self.received = 0
        self.problem: BaseException | None = None
        self._given_up = False
        self._lock = threading.Lock()

    def watch(self, worker: threading.Thread) -> None:
        """Wait for the end of the attempt, or give it up if it is too slow."""
        try:
            self._watch(worker)
        finally:
            with self._lock:
                self._given_up = True  # after the waiting nothing more may be written
        if self.problem is not None:
            raise self.problem

    def _watch(self, worker: threading.Thread) -> None:
        patience = 1.25 * self.timeout + 0.2  # a connection that receives nothing ends on its own before this
        since = time.monotonic()
        before = 0
        while worker.is_alive():
            worker.join(min(0.2, self.timeout / 4))
            passed = time.monotonic() - since
            came = self.received - before
            if passed < patience or not worker.is_alive():
                continue
            if came < LOWEST_RATE * passed:
                raise SlowError(
                    f"only {came} bytes came in {passed:.0f} seconds, fewer than {LOWEST_RATE} a second"
                )
            since = time.monotonic()
            before = self.received

    def run(self) -> None:
        """Make the attempt; an error is kept for the waiting thread."""
        try:
            self._fetch()
        except urllib.error.HTTPError as error:
            self.problem = self._refused(error)
        except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError) as error:
            reason = error.reason if isinstance(error, urllib.error.URLError) else error
            self.problem = RetryError(_printable(str(reason)) or type(error).__name__)
        except ssl.SSLError as error:
            self.problem = RetryError(_printable(str(error)))
        except (RetryError, WeightsError, OSError) as error:
            self.problem = error
        except ValueError as error:
            self.problem = WeightsError(f"cannot download {self.url}: {error}")

    def _refused(self, error: urllib.error.HTTPError) -> Exception:
        if error.code == 416:  # the local part is longer than the server's file
            with self._lock:
                if not self._given_up:
                    self.part.unlink(missing_ok=True)
            return RetryError("the partial file does not fit the server's")
        answer = f"the server answered {error.code} {_printable(str(error.reason))}".rstrip()
        if error.code >= 500 or error.code in _TRANSIENT:
            return RetryError(answer)
        return WeightsError(f"cannot download {self.url}: {answer}")

    def _fetch(self) -> None:
        tag = tag_file(self.part)
        have = self.part.stat().st_size if self.part.is_file() and tag.is_file() else 0
        request = _request(self.url)
        if have:
            request.add_header("Range", f"bytes={have}-")
            request.add_header("If-Range", tag.read_bytes().decode("ascii", "replace"))
        with _opener().open(request, timeout=self.timeout) as reply:
            with self._lock:
                if self._given_up:
                    return
                have, total = self._prepare(reply, have)
            self._receive(reply, have, total)

    def _prepare(self, reply: http.client.HTTPResponse, have: int) -> tuple[int, int | None]:
        """Return how many bytes exist already, and the total number (None if unknown)."""
        expected = f"bytes {have}-"
        continues = reply.status == 206 and reply.headers.get("Content-Range", "").startswith(expected)
        if have and reply.status == 206 and not continues:
            self.part.unlink()
            raise RetryError("the server sent another range than asked for")
        have = have if continues else 0
        tag = reply.headers.get("ETag") or reply.headers.get("Last-Modified") or ""
        if tag and tag.isascii() and tag.isprintable() and not tag.startswith("W/"):
            tag_file(self.part).write_text(tag, "ascii")
        else:
            tag_file(self.part).unlink(missing_ok=True)
        length = reply.headers.get("Content-Length", "")
        total = have + int(length) if length.isdecimal() and len(length) < 16 else None
        self._check_size(total or 0, have)
        if not have:
            self.part.write_bytes(b"")
        return have, total

    def _receive(self, reply: http.client.HTTPResponse, have: int, total: int | None) -> None:
        title = self.part.name.strip(".")
        with (
            self.part.open("ab") as stream,
            tqdm(total=total, initial=have, unit="B", unit_scale=True, desc=title, disable=None) as bar,
        ):
            while chunk := reply.read1(_CHUNK):
                with self._lock:
                    if self._given_up:
                        return
                    stream.write(chunk)
                    stream.flush()
                bar.update(len(chunk))
                self.received += len(chunk)
                have += len(chunk)
                if have > self.max_bytes:
                    self._check_size(have, have)
        if total is not None and have != total:
            raise RetryError(f"the connection ended after {have} of {total} bytes")

    def _check_size(self, total: int, have: int) -> None:
        if total > self.max_bytes:
            raise WeightsError(
                f"{self.url} sends {total} bytes or more, and weights have at most {self.max_bytes}"
            )
        free = shutil.disk_usage(self.part.parent).free
        if total - have > free:
            raise WeightsError(
                f"{self.url} sends {total - have} bytes, and {self.part.parent} has room for {free}"
            )


class _Redirect(urllib.request.HTTPRedirectHandler):
    """Follow redirects only to http and https, and never from https to http."""

    def http_error_302(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any
    ) -> Any:
        """Follow a redirect without reading its body, which may be endless."""
        fp.close()
        return super().http_error_302(req, io.BytesIO(), code, msg, headers)

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        """Return the request for the new address."""
        allowed = ("https",) if req.type == "https" else ("http", "https")
        scheme = urlsplit(newurl).scheme
        if scheme not in allowed:
            raise WeightsError(
                f"cannot download {req.full_url}: the server redirects to {newurl}, and only "
                f"{' or '.join(allowed)} is followed from there"
            )
        check_url(newurl.replace(" ", "%20"))
        if super().redirect_request(req, fp, code, msg, headers, newurl) is None:
            return None
        found = _request(newurl)
        for name in ("Range", "If-range"):  # in urllib's spelling
            if req.has_header(name):
                found.add_header(name, req.get_header(name, ""))
        return found


def _opener() -> urllib.request.OpenerDirector:
    """Return an opener for http and https addresses only (no ftp, file or data)."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.UnknownHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        _Redirect(),
        urllib.request.HTTPErrorProcessor(),
    ):
        opener.add_handler(handler)
    return opener


def _request(url: str) -> urllib.request.Request:
    """Return the request for an address; a name and password in it become a header."""
    parts = urlsplit(url)
    host = (parts.hostname or "").encode("idna").decode("ascii")
    host = f"[{host}]" if ":" in host else host
    plain = parts._replace(
        netloc=host if parts.port is None else f"{host}:{parts.port}",
        path=quote(parts.path, safe=_SAFE),
        query=quote(parts.query, safe=_SAFE + "?"),
        fragment="",
    ).geturl()
    request = urllib.request.Request(plain, headers={"User-Agent": "ppcls"})
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        # Not sent to the host of a redirect, which may be another one.
        request.add_unredirected_header(
            "Authorization", f"Basic {base64.b64encode(pair.encode()).decode('ascii')}"
        )
    return request
