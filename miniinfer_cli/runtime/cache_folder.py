"""Where compiled kernels, chosen tactics, plans and the figures of ``devices --measure`` are kept between processes."""

import os
from pathlib import Path
from typing import Any

from miniinfer_cli.backends.interface import DEFAULT_OPTIONS
from miniinfer_cli.errors import UsageError

MOST_MIB = 1 << 30
"""The largest size of a cache that may be given, in MiB: more than any disk has."""


def default_cache() -> Path | None:
    """``$MINIINFER_CACHE`` (empty: keep nothing on disk), else ``$XDG_CACHE_HOME/miniinfer``, else ``~/.cache/miniinfer``.

    It holds code for the GPU: a folder of somebody else's is not used (``cache_files.py`` says when it is).
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


def cache_options() -> dict[str, Any]:
    """The fields of DeviceOptions that say what is kept where, by name: ``default_cache()``, and its sizes in MiB.

    These are ``$MINIINFER_KERNEL_CACHE_MIB`` and ``$MINIINFER_TACTIC_CACHE_MIB``, else what DeviceOptions has. Raises UsageError
    for what is no whole number.
    """
    return {
        "cache": default_cache(),
        "kernel_cache_mib": _size("MINIINFER_KERNEL_CACHE_MIB", DEFAULT_OPTIONS.kernel_cache_mib),
        "tactic_cache_mib": _size("MINIINFER_TACTIC_CACHE_MIB", DEFAULT_OPTIONS.tactic_cache_mib),
    }


def plan_cache_mib() -> int:
    """MiB that the plans of onnxruntime's programs may take: ``$MINIINFER_PLAN_CACHE_MIB``, else 4096; 0 keeps none.

    Raises UsageError for what is no whole number.
    """
    return _size("MINIINFER_PLAN_CACHE_MIB", 4096)


def _size(variable: str, default: int) -> int:
    text = os.environ.get(variable, "")
    if not text:
        return default
    # A number of very many digits is refused before it is computed.
    if not text.isdecimal() or not text.isascii() or len(text) > 10 or int(text) > MOST_MIB:
        told = f"{variable}: expected MiB as a whole number up to {MOST_MIB}, got {text!r}"
        raise UsageError(told, hint=f"leave it out for {default}")
    return int(text)
