"""``profile`` over several numbers of streams and batches: measures settings, and tells the best, and the knee."""

import functools
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from miniinfer_cli.cli import flags
from miniinfer_cli.cli.batch_flag import batch_dimension
from miniinfer_cli.cli.flag_values import FiniteRange
from miniinfer_cli.cli.measuring import Bench, identity_of, opened
from miniinfer_cli.cli.outputs import Output, check_outputs
from miniinfer_cli.cli.pictures import write_report
from miniinfer_cli.cli.report import Printer, write_json
from miniinfer_cli.cli.sweep_report import SweepResult, print_sweep, sweep_to_json
from miniinfer_cli.cli.sweep_state import SweepState
from miniinfer_cli.cli.wanted import Swept, Wanted
from miniinfer_cli.errors import LimitExceeded, MiniinferError, OutOfMemoryError, UsageError
from miniinfer_cli.measuring.benchmark import measure_together
from miniinfer_cli.measuring.metrics import distribution
from miniinfer_cli.measuring.sweep import MOST_SETTINGS, Sweep, run_sweep
from miniinfer_cli.measuring.sweep_points import Failed, Reading, Setting
from miniinfer_cli.shortage import memory_ran_out
from miniinfer_cli.visible import visible

_REDRAW_S = 0.25  # seconds between two drawings of the bar
# What a sweep that goes on may have otherwise than before.
_FREE = ("device", "streams", "batch", "percentiles", "latency_budget_ms", "all_points")
_LEFT_TO_ONE = {"--top": "times no nodes", "--trace": "records no timeline"}
_SWEEP_FLAGS = ("latency_budget", "all_points", "sweep_state")
Show = Callable[[str, float], None]


@dataclass(frozen=True, slots=True)
class SweepWanted:
    """How to sweep: the p99 that a setting may have, whether all are measured, and the file that keeps what was."""

    budget_ms: float | None
    all_points: bool
    state: Path | None


def sweep_flags(command: flags.Command) -> flags.Command:
    """How to sweep; gives the command ``sweep``, a SweepWanted."""

    @functools.wraps(command)
    def with_sweep(
        *args: Any, wanted: Wanted, latency_budget: float | None, all_points: bool, sweep_state: Path | None, **kwargs: Any
    ) -> Any:
        unheeded = flags.typed(_SWEEP_FLAGS) if wanted.swept is None and kwargs["load"] is None else ()
        if unheeded:
            hint = "give several values: --streams 1,2,4, --batch 1,2,4,8, or both"
            raise UsageError(f"{', '.join(unheeded)}: there is one setting, and nothing to sweep", hint=hint)
        return command(*args, wanted=wanted, sweep=SweepWanted(latency_budget, all_points, sweep_state), **kwargs)

    return flags.together(
        click.option("--latency-budget", type=FiniteRange(0, min_open=True), metavar="MS",
                     help="In a sweep, find the best setting whose p99 latency is at most so many milliseconds, too;"
                     " under load, tell how much kept to it."),
        click.option("--all-points", is_flag=True, help="In a sweep, measure every setting, not those alone that may be best."),
        click.option("--sweep-state", type=flags.PATH, metavar="FILE",
                     help="Keep what a sweep measured in this file, and go on from it."),
    )(with_sweep)  # fmt: skip


def profile_sweep(
    wanted: Wanted, swept: Swept, options: SweepWanted, printer: Printer, json_file: Path | None, report: Path | None
) -> None:
    """Measures the settings, and prints and writes what came out; after Ctrl-C what there is, and raises KeyboardInterrupt.

    Raises UsageError for what cannot be swept, OutOfMemoryError where not one setting could be measured.
    """
    for flag in flags.typed(("top", "trace")):
        hint = "leave it out, or give one setting, as --streams 4 --batch 8"
        raise UsageError(f"{flag}: a sweep {_LEFT_TO_ONE[flag]}", hint=hint)
    count = len(swept.streams) * len(swept.batches or (1,))
    if count > MOST_SETTINGS:
        hint = "give fewer values, as 1,2,4,8,16: a search finds what lies between larger steps no better"
        raise UsageError(f"--streams and --batch make {count} settings, {MOST_SETTINGS} at most are swept", hint=hint)
    outputs = [
        Output("--json", json_file, json=True),
        Output("--report", report),
        Output("--sweep-state", options.state, seekable=True),
    ]
    check_outputs(outputs, wanted.sources())
    with opened(wanted, printer) as bench:
        if swept.batches:
            dimension = batch_dimension(bench.engine.inputs, wanted.batch_dim)
            for batch in swept.batches:
                dimension.expect(batch, bench.engine.inputs, bench.engine.ranges)
        identity = _identity(bench, swept, options)
        sweep = Sweep(
            swept.streams, swept.batches or (bench.batch or 1,), budget_ms=options.budget_ms, all_points=options.all_points
        )
        with SweepState(options.state, _key(identity)) as state:
            interrupted = _measure_all(_Measuring(bench, sweep, state), printer)
        gpu_state = bench.engine.model.state()
    result = SweepResult(sweep, bench.batch is not None, interrupted)
    print_sweep(printer, result, wanted.plan, gpu_state)
    document = sweep_to_json(result, identity, gpu_state)
    if json_file is not None:
        write_json(json_file, document)
    if report is not None:
        write_report(report, document)
    if interrupted:
        raise KeyboardInterrupt
    if sweep.best is None:
        why = next(iter(sweep.failed.values())).why
        raise OutOfMemoryError(f"no setting could be measured: {why}", hint="give smaller values to --streams and --batch")


def _identity(bench: Bench, swept: Swept, options: SweepWanted) -> dict[str, Any]:
    """What is run, how, where and when, as for one setting; where several batches are, inputs have the shapes as declared."""
    one = identity_of(bench)
    settings = {
        **one["settings"],
        "streams": list(swept.streams),
        "batch": list(swept.batches) or None,
        "latency_budget_ms": options.budget_ms,
        "all_points": options.all_points,
    }
    if len(swept.batches) < 2:
        return {**one, "settings": settings}
    declared = [None if b.shape is None else list(b.shape) for b in bench.engine.inputs]
    inputs = [{**i, "shape": shape} for i, shape in zip(one["inputs"], declared, strict=True)]
    return {**one, "batch": None, "inputs": inputs, "settings": settings}


def _key(identity: Mapping[str, Any]) -> dict[str, Any]:
    """What must be alike for figures to go together: the plan, the device, the machine, versions, and other settings."""
    host, settings = dict(identity["host"]), dict(identity["settings"])
    inputs = {i["name"]: i["source"] for i in identity["inputs"]}
    return {
        "plan_digest": identity["plan_digest"],
        "device": {"device": identity["device"], **identity["device_facts"]},
        "host": {name: host[name] for name in ("machine", "processor", "cores", "environment")},
        "versions": identity["versions"],
        "settings": {k: v for k, v in settings.items() if k not in _FREE}
        | {"inputs": inputs, "with_batch": settings["batch"] is not None},
    }


def _measure_all(measuring: "_Measuring", printer: Printer) -> bool:
    """Measures until the sweep is over; True when Ctrl-C came before."""
    state, sweep = measuring.state, measuring.sweep
    known = [(s, o) for s, o in state.outcomes if s in sweep.settings]
    for setting, outcome in known:
        sweep.add(setting, outcome)
    if known:
        printer.line(f"State: {len(known)} measurements from {state.path}")
    try:
        with printer.share() as show:
            run_sweep(sweep, functools.partial(measuring.measure, show=show))
    except BaseException as error:
        state.give_up()  # the command lives, so the setting is not to blame
        if isinstance(error, KeyboardInterrupt):
            return True
        raise
    return False


class _Measuring:
    """Measures one setting after another on one engine; the inputs are made anew when the batch changes."""

    def __init__(self, bench: Bench, sweep: Sweep, state: SweepState) -> None:
        self.bench, self.sweep, self.state = bench, sweep, state

    def measure(self, setting: Setting, show: Show) -> Reading | Failed:
        """What comes of measuring the setting, which is kept."""
        outcome = self.state.begin(setting) or self._measured(setting, show)
        self.state.add(setting, outcome)
        return outcome

    def _measured(self, setting: Setting, show: Show) -> Reading | Failed:
        try:
            self.bench = self.bench.at(setting.streams, setting.batch if self.bench.wanted.batch is not None else None)
            schedule = self.bench.wanted.schedule
            progress = _progress(show, self.sweep, setting, schedule.warmup_ms / 1e3 + schedule.duration_s)
            bench, streams = self.bench, setting.streams
            samples, _ = measure_together(bench.engines, bench.arrays, schedule, streams=streams, progress=progress)
        except (OutOfMemoryError, LimitExceeded) as error:
            return Failed(error.in_flags().splitlines()[0])
        except MiniinferError:
            raise
        except Exception as error:
            if not memory_ran_out(error):
                raise
            return Failed(visible(f"this machine's memory ran out: {error}"))
        latency = distribution(samples.latency_ms, (50, 99, *self.bench.wanted.percentiles))
        end_to_end = distribution(samples.end_to_end_ms, (50, 99, *self.bench.wanted.percentiles))
        count = len(samples.latency_ms)
        figures = dict(latency.percentiles)
        more = {"iterations": count, "latency_ms": latency.to_json(), "end_to_end_latency_ms": end_to_end.to_json()}
        return Reading(setting.batch * count / samples.walltime_s, figures[50], figures[99], more)


def _progress(show: Show, sweep: Sweep, setting: Setting, seconds: float) -> Callable[[str, int], None]:
    """What tells how far all is while one setting is measured, which takes so long."""
    done = len(sweep.points) + len(sweep.failed)
    again = "once more, " if any(p.setting == setting for p in sweep.points) else ""
    told = f"streams {setting.streams}, batch {setting.batch} ({again}{done} of {sweep.most} settings at most)"
    begun, drawn = time.monotonic(), 0.0

    def progress(stage: str, count: int) -> None:
        nonlocal drawn
        now = time.monotonic()
        if now - drawn >= _REDRAW_S:
            drawn = now
            within = min((now - begun) / seconds, 1.0) if seconds else 0.0
            show(told, min((done + within) / sweep.most, 1.0))

    return progress
