"""Unpack the embedded Fashion-MNIST part: ``python dataset/unpack.py`` makes ``dataset/fashion_mnist/``.

Running it again does nothing. The folder appears whole or not at all.
"""

from __future__ import annotations

import hashlib
import shutil
import sys
import tarfile
import tempfile
from pathlib import Path

ARCHIVE = Path(__file__).with_name("fashion_mnist.tar.xz")
MARK = ".archive_sha256"


def unpack(archive: Path, target: Path) -> bool:
    """Unpack `archive`, whose files lie below one folder, as `target`; returns whether anything was done.

    A `target` made from another version of the archive is replaced.

    Raises:
        FileExistsError: `target` exists and was not made by this function.
        ValueError: the archive holds something else than plain files below one folder.
    """
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    mark = target / MARK
    if target.exists():
        if not mark.is_file():
            raise FileExistsError(f"{target} was not made from {archive.name}: move it away first")
        if mark.read_text() == digest:
            return False
    target.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        fresh = work / "new"
        _extract(archive, fresh)
        (fresh / MARK).write_text(digest)
        if target.exists():
            target.rename(work / "old")
        fresh.rename(target)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return True


def _extract(archive: Path, folder: Path) -> None:
    """Write the archive's plain files below `folder`, without the name of the archive's own top folder."""
    folder.mkdir()
    made: set[Path] = set()
    with tarfile.open(archive) as tar:
        for member in tar:
            source = tar.extractfile(member)
            parts = Path(member.name).parts[1:]
            if source is None or not member.isreg() or not parts or ".." in parts:
                raise ValueError(f"{archive}: unexpected entry {member.name!r}")
            path = folder.joinpath(*parts)
            if path.parent not in made:
                path.parent.mkdir(parents=True, exist_ok=True)
                made.add(path.parent)
            path.write_bytes(source.read())


def main() -> int:
    """Unpack beside the archive; returns the exit code."""
    target = ARCHIVE.with_name("fashion_mnist")
    try:
        done = unpack(ARCHIVE, target)
    except (OSError, ValueError, tarfile.TarError) as error:
        print(f"unpack: {error}", file=sys.stderr)
        return 2
    print(f"{'unpacked into' if done else 'already unpacked:'} {target}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
