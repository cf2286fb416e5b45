"""The functions of the package that set or tell something of the process."""

import logging
import os
from typing import Any

from miniinfer_cli.ort.providers import LOG
from miniinfer_cli.version import ONNXRUNTIME, VERSION

_LEVELS = (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL)


def set_default_logger_severity(severity: int) -> None:
    """What is logged, to the logger ``miniinfer_cli.ort``: 0 everything, to 4 what is fatal. Raises ValueError for others."""
    if not 0 <= severity < len(_LEVELS):
        raise ValueError(f"severity: expected 0 to {len(_LEVELS) - 1}, got {severity!r}")
    LOG.setLevel(_LEVELS[severity])


def set_default_logger_verbosity(verbosity: int) -> None:
    """Nothing: there is one level of detail."""


def set_default_logger_callback(callback: Any) -> None:
    """Nothing is handed on: give the logger ``miniinfer_cli.ort`` a handler."""
    LOG.debug("set_default_logger_callback: give the logger miniinfer_cli.ort a handler")


def disable_telemetry_events() -> None:
    """Nothing: there are none."""


def enable_telemetry_events() -> None:
    """Nothing: there are none."""


def preload_dlls(cuda: bool = True, cudnn: bool = True, msvc: bool = True, directory: str | None = None) -> None:
    """Nothing: NVIDIA's libraries are found and loaded when a session needs them (``miniinfer devices`` lists them)."""


def print_debug_info() -> None:
    """Logs the versions, whatever the level."""
    LOG.warning("miniinfer %s with the names of onnxruntime %s", VERSION, ONNXRUNTIME)


def set_seed(seed: int) -> None:
    """Nothing: an operation that draws without a seed of its own draws anew at each run."""


def set_global_thread_pool_sizes(intra_op_num_threads: int, inter_op_num_threads: int) -> None:
    """The threads of sessions that do not say how many, from here on."""
    os.environ["MINIINFER_NUM_THREADS"] = str(intra_op_num_threads)


def get_version_string() -> str:
    """The release of onnxruntime whose names these are."""
    return ONNXRUNTIME


def get_build_info() -> str:
    """What this is."""
    return f"miniinfer {VERSION}, with the names of onnxruntime {ONNXRUNTIME}"


def has_collective_ops() -> bool:
    """False: there are none."""
    return False
