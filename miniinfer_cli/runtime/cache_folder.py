"""Where compiled kernels, chosen tactics and the figures of ``devices --measure`` are kept between processes."""

import os
from pathlib import Path


def default_cache() -> Path | None:
    """``$MINIINFER_CACHE`` (empty: keep nothing on disk), else ``$XDG_CACHE_HOME/miniinfer``, else ``~/.cache/miniinfer``.

    It holds code for the GPU: a folder of somebody else's is not used (``driver/cache_files.py`` says when it is).
    """
    chosen = os.environ.get("MINIINFER_CACHE")
    if chosen is not None:
        return Path(chosen) if chosen else None
    base = os.environ.get("XDG_CACHE_HOME")
    if base and Path(base).is_absolute():
        return Path(base) / "miniinfer"
    try:
        return Path.home() / ".cache" / "miniinfer"
    except RuntimeError:  # nobody's home
        return None
