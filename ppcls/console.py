"""Standard output and standard error that may fail: a full disk, a reader that has ended, a closed stream.

A training must not end because of its console. So :func:`patient_console` replaces both streams: text that
cannot be written is dropped and the error is remembered, characters that the console's encoding lacks are
escaped, and no unwritten text is left at the end of Python, where it would change the exit code.
"""

from __future__ import annotations

import ctypes
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO, cast


class Console(io.TextIOBase):
    """A text stream on a file descriptor that writes line by line and remembers its first error.

    Args:
        descriptor: file descriptor to write to.
        encoding: encoding of the console; characters that it lacks are escaped.

    Attributes:
        strict: whether errors are also raised; otherwise the text is dropped.
        error: the first error; None if there was none.
    """

    def __init__(self, descriptor: int, encoding: str) -> None:
        self._descriptor = descriptor
        self._encoding = encoding
        self.strict = False
        self._begun = ""  # an unfinished line
        self.error: OSError | None = None

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """Encoding of the console."""
        return self._encoding

    @property
    def errors(self) -> str:  # type: ignore[override]
        """How characters that the encoding lacks are handled."""
        return "backslashreplace"

    def fileno(self) -> int:
        """Return the file descriptor."""
        return self._descriptor

    def use(self, descriptor: int) -> None:
        """Write to another file descriptor from now on."""
        self._descriptor = descriptor

    def isatty(self) -> bool:
        """Tell whether this is a terminal."""
        return os.isatty(self._descriptor)

    def writable(self) -> bool:
        """Return True: it can be written to."""
        return True

    def write(self, text: str) -> int:
        """Write `text` up to the end of its last complete line; keep the rest until the line is complete.

        Raises:
            OSError: if it cannot be written and this console is strict.
        """
        self._begun += text
        if "\n" in text:
            self.flush()
        return len(text)

    def flush(self) -> None:
        """Write the unfinished line.

        Raises:
            OSError: if it cannot be written and this console is strict.
        """
        left = memoryview(self._begun.encode(self._encoding, self.errors))
        self._begun = ""
        try:
            while left:
                left = left[os.write(self._descriptor, left) :]
        except OSError as error:
            self.error = self.error or error
            if self.strict:
                raise


@contextmanager
def patient_console() -> Iterator[Console | None]:
    """While the block runs, ``sys.stdout`` and ``sys.stderr`` tolerate a console that fails.

    Yields:
        the console of standard output; None if it is replaced by something else, as in a notebook.
    """
    for descriptor in range(3):  # in order; files opened later must not get the number of a closed stream
        _open_if_closed(descriptor)
    old = (sys.stdout, sys.stderr)
    output = _console_of(sys.stdout, 1)
    if output is not None:
        sys.stdout = cast(TextIO, output)
    error_output = _console_of(sys.stderr, 2)
    if error_output is not None:
        sys.stderr = cast(TextIO, error_output)
    try:
        yield output
    finally:
        for console in (output, error_output):
            if console is not None:
                with suppress(OSError):
                    console.flush()
        sys.stdout, sys.stderr = old
        for stream in old:
            _flush_or_drop(stream)


@contextmanager
def without_native_messages() -> Iterator[None]:
    """Drop what libraries write to the file descriptor of standard error while the block runs.

    Paddle warns there of features that a network which is only inspected does not use. Python's own output to
    ``sys.stderr`` has the same descriptor, so the block should write nothing itself.
    """
    sys.stderr.flush()
    kept = os.dup(2)
    null = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(null)


@contextmanager
def results_alone() -> Iterator[None]:
    """While the block runs, standard output gets only what Python prints.

    Libraries in C++ print notes of their own there, among results that a program reads; these notes go to
    standard error.
    """
    console = sys.stdout
    if not isinstance(console, Console) or console.fileno() != 1:
        yield
        return
    console.flush()
    own = os.dup(1)
    os.dup2(2, 1)
    console.use(own)
    try:
        yield
    finally:
        with suppress(OSError):  # remembered already
            console.flush()
        with suppress(OSError, AttributeError, TypeError):
            ctypes.CDLL(None).fflush(None)  # what the libraries have printed and not yet written
        os.dup2(own, 1)
        console.use(1)
        os.close(own)


def _open_if_closed(descriptor: int) -> None:
    """Open the null device instead of a closed standard stream (``ppcls ... >&-``)."""
    try:
        os.fstat(descriptor)
    except OSError:
        os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # it gets the lowest free number


def _console_of(stream: TextIO | None, descriptor: int) -> Console | None:
    """Return a console in the place of `stream`; None if that is not the standard stream `descriptor`."""
    if stream is None:  # Python found it closed
        return Console(descriptor, "utf-8")
    try:
        if stream.fileno() != descriptor:
            return None
    except (OSError, ValueError):  # replaced by something that is not a file
        return None
    with suppress(OSError):  # the remaining text is dropped at the end
        stream.flush()
    return Console(descriptor, stream.encoding or "utf-8")


def _flush_or_drop(stream: TextIO | None) -> None:
    """Write the remaining text of `stream`, or drop it: otherwise Python would fail at its end."""
    if stream is None or stream.closed:
        return
    try:
        stream.flush()
    except OSError:
        with suppress(OSError, ValueError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, stream.fileno())
            os.close(null)
            stream.flush()
