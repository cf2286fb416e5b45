"""Where compiled kernels and chosen tactics are kept between processes."""

import os
from pathlib import Path


def default_cache() -> Path | None:
    """``$MINIINFER_CACHE`` (empty: keep nothing on disk), else ``$XDG_CACHE_HOME/miniinfer``, else ``~/.cache/miniinfer``.

    The folder holds code for the GPU: it must be the user's own.
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
