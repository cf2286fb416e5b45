"""Tunes a plan file, or a plan in memory, and writes what came out: the work behind ``miniinfer tune`` and ``build --tune``."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from engine_format import Plan, PlanError, write_plan
from miniinfer_cli.backends.interface import DEFAULT_OPTIONS, DeviceOptions
from miniinfer_cli.devices.tuning import Progress, Tuned, TuningOptions, expect_tuning_options, tune_plan
from miniinfer_cli.errors import PlanFileError, UsageError, unknown_option, unwritable
from miniinfer_cli.runtime.cache_folder import cache_options
from miniinfer_cli.runtime.plan_files import open_plan

_OPTIONS = [f.name for f in fields(TuningOptions)]


@dataclass(frozen=True, slots=True)
class Written:
    """What tuning came to, and the file that holds it; None where it was not to be written, or nothing changed."""

    tuned: Tuned
    path: Path | None


def tune_into(
    source: "Path | Plan",
    output: Path | None,
    device: str,
    options: TuningOptions,
    device_options: DeviceOptions = DEFAULT_OPTIONS,
    progress: Progress = lambda what, part: None,
) -> Written:
    """Tunes the plan ``source`` and writes it to ``output``, or over its own file; one in memory is not written without it.

    A plan that did not change is written only to another file than its own. Raises what ``tune_plan`` raises, PlanFileError for
    what is no plan, UsageError and OutOfMemoryError where it cannot be written.
    """
    plan = source if isinstance(source, Plan) else open_plan(source)
    try:
        tuned = tune_plan(plan, device, options, device_options, progress)
        target = output if output is not None else None if isinstance(source, Plan) else source
        if target is None or (not tuned.changed and target is source):
            return Written(tuned, None)
        try:
            write_plan(tuned.plan, target)
        except PlanError as error:
            raise PlanFileError(str(error)).at(str(target)) from error
        except OSError as error:
            raise unwritable(error, target, if_full="the plan that was there is as it was") from None
        return Written(tuned, target)
    finally:
        if not isinstance(source, Plan):
            plan.close()


def tune_with(source: Any, output: Any, device: Any, options: Mapping[str, Any]) -> Plan:
    """Like ``tune_into``, with the fields of TuningOptions and DeviceOptions by name. Gives the tuned plan, of the file if any.

    Raises UsageError for options that there are not, and for arguments of another kind.
    """
    known = [*_OPTIONS, *(f.name for f in fields(DeviceOptions) if f.name not in ("timing_cache", "tactics"))]
    for name in options:
        if name not in known:
            raise unknown_option("tune", name, known)
    if not isinstance(source, (str, os.PathLike, Plan)):
        raise UsageError(f"tune: expected a path or a Plan, got {type(source).__name__}", hint="give what build() returned")
    if output is not None and not isinstance(output, (str, os.PathLike)):
        raise UsageError(f"tune: expected a path to write to, got {type(output).__name__}")
    chosen = checked_options({k: v for k, v in options.items() if k in _OPTIONS})
    on_device = DeviceOptions(**{**cache_options(), **{k: v for k, v in options.items() if k not in _OPTIONS}})
    path = source if isinstance(source, Plan) else Path(source)
    written = tune_into(path, None if output is None else Path(output), device, chosen, on_device)
    if written.tuned.interrupted:
        raise KeyboardInterrupt
    if isinstance(source, Plan):
        return written.tuned.plan
    return open_plan(written.path or Path(source))


def checked_options(options: Mapping[str, Any]) -> TuningOptions:
    """The options by name. Raises UsageError for values of another kind."""
    chosen = TuningOptions(**options)
    for name in ("sign_key", "timing_cache"):
        path = getattr(chosen, name)
        if path is not None and not isinstance(path, (str, os.PathLike)):
            raise UsageError(f"tune: {name}: expected a file or None, got {path!r}")
    expect_tuning_options(chosen)
    key, cache = (None if path is None else Path(path) for path in (chosen.sign_key, chosen.timing_cache))
    return replace(chosen, sign_key=key, timing_cache=cache)
