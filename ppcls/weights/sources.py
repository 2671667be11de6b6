"""Official weights: the table of addresses, the cache on disk, the download."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import tempfile
import time
from functools import cache
from importlib import resources
from pathlib import Path
from urllib.parse import urlsplit

from filelock import FileLock

from ppcls.errors import WeightsError, hint, mask_credentials
from ppcls.weights.download import MAX_BYTES, RetryError, SlowError, check_url, tag_file, transfer
from ppcls.weights.parameter_files import read_params

logger = logging.getLogger("ppcls.weights")

_CHUNK = 1 << 20
# Options of networks that choose among official weights, and the matching parts of the addresses.
VARIANTS = {
    "use_ssld": "ssld",
    "use_ssld_stage1_pretrained": "ssld_stage1",
    "use_imagenet22k_pretrained": "22k",
    "use_imagenet22kto1k_pretrained": "22kto1k",
}
# The names of PyTorch's files contain the beginning of their SHA-256, as in resnet18-f37072fd.pth.
_NAMED_BY_HASH = re.compile(r".*-([0-9a-f]{8,64})\.(?:pth|pt|th)")
_DATE = re.compile(r"(?:19|20)\d\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])")  # as in resnet18-20240131.pth


def cache_folder(part: str = "weights") -> Path:
    """Return where a part of the cache is: ``$PPCLS_HOME/weights``, else ``~/.cache/ppcls/weights``.

    A user without a home (HOME is not set, and the system does not know the user) has a temporary folder.

    Raises:
        WeightsError: if PPCLS_HOME begins with the home of an unknown user, or another user has made the
            temporary folder.
    """
    given = os.environ.get("PPCLS_HOME")
    home = os.path.expanduser(given or os.path.join("~", ".cache", "ppcls"))
    if not home.startswith("~"):  # else `~` means nothing
        return Path(home) / part
    if given and not given.startswith(("~/", "~" + os.sep)):
        raise WeightsError(f"PPCLS_HOME: {given} begins with the home folder of an unknown user")
    return _temporary_home() / part


def _temporary_home() -> Path:
    """Return a folder of this user for a cache, in the folder for temporary files."""
    posix = os.name == "posix"
    folder = Path(tempfile.gettempdir()) / f"ppcls-{os.getuid() if posix else 'cache'}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if posix and folder.lstat().st_uid != os.getuid():
        raise WeightsError(f"{folder} belongs to another user; set PPCLS_HOME to a folder of your own")
    return folder


@cache
def _table() -> dict[str, str]:
    return json.loads(resources.files(__package__).joinpath("pretrained_urls.json").read_text("utf-8"))


def official_url(
    name: str, use_ssld: bool = False, where: str = "Arch", *, variant: str | None = None
) -> str:
    """Return the address of official weights of network `name`.

    Args:
        name: the registered name of the network.
        where: config path for messages.
        use_ssld: use the weights distilled by SSLD instead of those trained on labels.
        variant: one of the values of `VARIANTS`: ``ssld`` (like `use_ssld`), ``ssld_stage1`` (only the
            first stage of SSLD), ``22k`` (ImageNet-22k, 21841 classes) or ``22kto1k`` (the same, fine-tuned
            on 1000 classes).

    Raises:
        WeightsError: if no official weights are known for the name.
    """
    if name not in _table():
        raise WeightsError(
            f"{where}.pretrained: there are no official weights for {name}; "
            "give a path or a URL instead of true." + hint(name, _table())
        )
    url = _table()[name]
    variant = variant or ("ssld" if use_ssld else None)
    return url if variant is None else _plain(url).replace("_pretrained", f"_{variant}_pretrained")


def _plain(url: str) -> str:
    """Return the common part of the addresses of all variants."""
    return re.sub(rf"_(?:{'|'.join(VARIANTS.values())})_pretrained", "_pretrained", url)


def cached_path(url: str) -> Path:
    """Return the path at which `fetch` keeps the file of `url`; it need not exist."""
    name = Path(urlsplit(url).path).name
    name = "weights" if name in ("", "..") else name
    if _plain(url) in map(_plain, _table().values()):
        return cache_folder() / name
    # Different addresses of users may end in the same file name.
    parts = urlsplit(url)
    public = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    return cache_folder() / hashlib.sha256(public.encode("utf-8", "replace")).hexdigest()[:12] / name


def fetch(url: str, *, attempts: int = 4, timeout: float = 30.0, max_bytes: int = MAX_BYTES) -> Path:
    """Return a local copy of `url`, downloading it when the cache has none.

    An interrupted download is resumed. The file enters the cache only if its size is right and its parameters
    can be read. Of several processes, one downloads and the others wait.

    Args:
        url: an http or https address; a name and password in it are sent, but never shown.
        attempts: how often a broken or stalled transfer is tried.
        timeout: seconds without a single byte after which a transfer counts as stalled. A transfer of less
            than 1000 bytes per second over that time is too slow.
        max_bytes: the largest file that is accepted.

    Raises:
        WeightsError: if it cannot be downloaded; the message says where to put the file by hand.
    """
    check_url(url)
    target = cached_path(url)
    if os.path.isfile(target):
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # The system gives the lock back when this process ends, however that happens.
        with FileLock(target.with_name(f".{target.name}.lock")):
            if not target.is_file():
                _download(url, target, attempts, timeout, max_bytes)
    except OSError as error:
        raise WeightsError(
            f"cannot keep {url} in {target.parent}: {error.strerror or error}. {_by_hand(url)}"
        ) from error
    return target


def _by_hand(url: str) -> str:
    return (
        f"Without a network, put the file at {cached_path(url)} yourself, set PPCLS_HOME to a folder "
        "that has it under weights/, or give its path as `pretrained`."
    )


def _download(url: str, target: Path, attempts: int, timeout: float, max_bytes: int) -> None:
    part = target.with_name(f".{target.name}.part")
    logger.info("downloading %s to %s", mask_credentials(url), target)
    problem = ""
    slow = 0
    for attempt in range(attempts):
        if attempt:
            time.sleep(min(2.0 ** (attempt - 1), 8.0) if timeout > 2 else 0.0)
        try:
            transfer(url, part, timeout, max_bytes)
            break
        except RetryError as error:
            problem = mask_credentials(str(error))
            logger.warning("attempt %d of %d: %s", attempt + 1, attempts, problem)
            slow += isinstance(error, SlowError)
            if slow > 1:
                raise WeightsError(f"cannot download {url}: {problem}. {_by_hand(url)}") from None
        except WeightsError as error:
            part.unlink(missing_ok=True)
            raise WeightsError(f"{error}. {_by_hand(url)}") from None
    else:
        raise WeightsError(f"cannot download {url}: {problem}. {_by_hand(url)}")
    complete = part.with_name(part.name + target.suffix)
    os.replace(part, complete)
    tag_file(part).unlink(missing_ok=True)
    try:
        _check_hash(target.name, complete)
        read_params(complete)
    except WeightsError as error:
        complete.unlink()
        raise WeightsError(f"{url} did not send a weights file: {error}. {_by_hand(url)}") from error
    os.replace(complete, target)


def _check_hash(name: str, file: Path) -> None:
    """Compare the SHA-256 of a file with the one in its name, if there is one."""
    named = _NAMED_BY_HASH.fullmatch(name)
    if named is None or _DATE.fullmatch(named[1]):
        return
    with file.open("rb") as stream:
        found = hashlib.sha256()
        while chunk := stream.read(_CHUNK):
            found.update(chunk)
    if not found.hexdigest().startswith(named[1]):
        raise WeightsError(f"its SHA-256 is {found.hexdigest()[:16]}..., its name says {named[1]}")
