"""Opens plans on devices: the one place where an engine meets the backends."""

import math
import os
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, get_args

from engine_format import Plan
from miniinfer_cli.backends.interface import DEFAULT_OPTIONS, MOST_THREADS, DeviceOptions, Scheduling, TrustTargets
from miniinfer_cli.devices.models import load_model
from miniinfer_cli.errors import UsageError, unknown_option
from miniinfer_cli.runtime.cache_folder import MOST_MIB, cache_options
from miniinfer_cli.runtime.engine import Engine
from miniinfer_cli.runtime.plan_files import open_plan
from miniinfer_cli.runtime.trust import key_in_environment


def load(source: "str | Path | Plan", device: str = "auto", options: DeviceOptions = DEFAULT_OPTIONS) -> Engine:
    """Opens a plan (a path, or a Plan in memory) on ``device``: ``auto``, ``cpu`` or ``cuda:N``.

    Raises PlanFileError when the file is not a sound plan, DeviceError when the device is not there, UsageError for arguments
    of another kind.
    """
    if not isinstance(device, str):
        raise UsageError(f"device: expected auto, cpu or cuda:N, got {device!r}")
    if isinstance(source, Plan):
        return Engine(source, device, load=load_model, options=options)
    if not isinstance(source, (str, os.PathLike)):
        hint = "give the path of a plan, or what build() returned"
        if isinstance(source, (bytes, bytearray, memoryview)):
            hint = "write the bytes to a file, and give its path: a plan is mapped, not read"
        raise UsageError(f"load: expected a path or a Plan, got {type(source).__name__}", hint=hint)
    plan = open_plan(source)
    try:
        return Engine(plan, device, load=load_model, owns_plan=True, options=options)
    except BaseException:
        plan.close()
        raise


def load_with(source: "str | Path | Plan", device: str, options: Mapping[str, Any]) -> Engine:
    """Like ``load``, with the fields of DeviceOptions by name; kernels are kept in the user's cache folder by default."""
    return load(source, device, options_of(options))


def options_of(options: Mapping[str, Any]) -> DeviceOptions:
    """The fields of DeviceOptions by name, checked; kernels are kept in the user's cache folder by default. Raises UsageError."""
    known = [f.name for f in fields(DeviceOptions)]
    for name in options:
        if name not in known:
            raise unknown_option("load", name, known)
    chosen = DeviceOptions(**{**cache_options(), "trust_key": key_in_environment(), **options})
    expect_options(chosen)
    given = (None if path is None else Path(path) for path in (chosen.cache, chosen.trust_key, chosen.timing_cache))
    cache, trust_key, timing_cache = given
    return replace(chosen, cache=cache, trust_key=trust_key, timing_cache=timing_cache)


def expect_options(chosen: DeviceOptions) -> None:
    """Raises UsageError for an option of another kind, and for two that contradict each other."""
    for name in ("cuda_graph", "overlap", "pdl", "ignore_targets", "nvtx"):
        if not isinstance(getattr(chosen, name), bool):
            raise UsageError(f"{name}: expected True or False, got {getattr(chosen, name)!r}")
    for name in ("kernel_cache_mib", "tactic_cache_mib"):
        value = getattr(chosen, name)
        if type(value) is not int or not 0 <= value <= MOST_MIB:
            raise UsageError(f"{name}: expected MiB as a whole number from 0 to {MOST_MIB}, got {value!r}")
    for name, words in (("scheduling", get_args(Scheduling)), ("trust_targets", get_args(TrustTargets))):
        if getattr(chosen, name) not in words:
            raise UsageError(f"{name}: expected one of {', '.join(words)}, got {getattr(chosen, name)!r}")
    if chosen.ignore_targets and chosen.trust_targets == "always":
        raise UsageError("ignore_targets=True and trust_targets='always' exclude each other")
    if chosen.threads is not None and (type(chosen.threads) is not int or not 1 <= chosen.threads <= MOST_THREADS):
        raise UsageError(f"threads: expected a whole number from 1 to {MOST_THREADS}, got {chosen.threads!r}")
    seconds, nbytes = chosen.time_limit, chosen.memory_limit
    if seconds is not None and (type(seconds) not in (int, float) or not 0 < seconds < math.inf):
        raise UsageError(f"time_limit: expected seconds above 0, or None, got {seconds!r}")
    if nbytes is not None and (type(nbytes) is not int or nbytes < 1):
        raise UsageError(f"memory_limit: expected a whole number of bytes above 0, or None, got {nbytes!r}")
    if not isinstance(chosen.tactics, Mapping) or not all(isinstance(t, str) for pair in chosen.tactics.items() for t in pair):
        raise UsageError(f"tactics: expected a dict of nodes' names and keys, got {chosen.tactics!r}")
    if isinstance(chosen.disable_tactics, str) or not all(isinstance(key, str) for key in chosen.disable_tactics):
        raise UsageError(f"disable_tactics: expected a list of keys, got {chosen.disable_tactics!r}")
    for name, kind in (("cache", "folder"), ("trust_key", "file"), ("timing_cache", "file")):
        path = getattr(chosen, name)
        if path is not None and not isinstance(path, (str, os.PathLike)):
            raise UsageError(f"{name}: expected a {kind} or None, got {path!r}")
