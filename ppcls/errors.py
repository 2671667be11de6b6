"""Errors a user can cause. The command line prints their text alone and exits with code 2."""

from __future__ import annotations

import difflib
import re
import traceback
from collections.abc import Iterable

PADDLE_MISSING = (
    "Paddle is not installed. For CPUs: python -m pip install 'paddlepaddle>=3.3,<3.4'; for GPUs, with the "
    "index of your CUDA version: python -m pip install 'paddlepaddle-gpu>=3.3,<3.4' "
    "-i https://www.paddlepaddle.org.cn/packages/stable/cu126/"
)


# The name and password of an address, and what stands behind its question mark: often a token.
_CREDENTIALS = re.compile(r"(\b[a-z][a-z0-9+.-]*://)[^/\s?#'\"]*@", re.IGNORECASE)
_QUERY = re.compile(r"(\b[a-z][a-z0-9+.-]*://[^\s?#'\"]*\?)[^\s'\"]*[^\s'\":,.;)\]}>]", re.IGNORECASE)


def mask_credentials(text: str) -> str:
    """Return a text in which addresses show neither name and password nor what stands behind ``?``."""
    return _QUERY.sub(r"\1***", _CREDENTIALS.sub(r"\1***@", text)) if "://" in text else text


class PpclsError(Exception):
    """Base of every error that is the user's to fix; its text is complete without a traceback.

    Passwords and tokens in addresses are masked in it.
    """

    def __str__(self) -> str:
        return mask_credentials(super().__str__())


class ConfigError(PpclsError):
    """A mistake in the YAML, in ``-o`` overrides or in arguments given to a registered class."""


class DataError(PpclsError):
    """A mistake in list files or images."""


class WeightsError(PpclsError):
    """A weights file or checkpoint that cannot be read or does not fit."""


class TrainingError(PpclsError):
    """A run that cannot go on, such as one with a non-finite loss."""


def hint(name: str, known: Iterable[str]) -> str:
    """Return ``" Did you mean: a, b?"`` for the known names nearest to `name`, or an empty string."""
    pool = [str(k) for k in known]
    folded = {k.lower(): k for k in pool}
    close = difflib.get_close_matches(str(name).lower(), list(folded), n=3, cutoff=0.6)
    return f" Did you mean: {', '.join(folded[c] for c in close)}?" if close else ""


def describe_failure(error: BaseException) -> str:
    """Return kind, text and origin of an exception that foreign code raised, as one line of a message."""
    text = " ".join(str(error).split()) or "no message"
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {text}{where}"
