"""What tests of downloads share: a small weights file, and a look into the cache."""

from __future__ import annotations

import os
import pickle

import numpy as np

from ppcls.weights.sources import cached_path

CONTENT = pickle.dumps({"w": np.arange(50_000, dtype=np.float32)}, protocol=4)


def files_in_cache(url: str) -> list[str]:
    folder = cached_path(url).parent
    return sorted(n for n in os.listdir(folder) if not n.endswith(".lock")) if folder.is_dir() else []
