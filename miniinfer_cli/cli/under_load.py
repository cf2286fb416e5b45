"""``profile`` under load: requests that come by one of MLPerf's scenarios, and what becomes of them."""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

from miniinfer_cli.cli import flags
from miniinfer_cli.cli.asserting import Asserts, expect_held, print_assertions
from miniinfer_cli.cli.feeds import feeds_for
from miniinfer_cli.cli.flag_values import FiniteRange
from miniinfer_cli.cli.load_report import LoadResult, load_to_json, print_load
from miniinfer_cli.cli.measuring import Bench, identity_of, opened
from miniinfer_cli.cli.outputs import Output, check_outputs
from miniinfer_cli.cli.pictures import write_report
from miniinfer_cli.cli.progress import Extent
from miniinfer_cli.cli.report import Printer, write_json
from miniinfer_cli.cli.wanted import Wanted
from miniinfer_cli.errors import UsageError
from miniinfer_cli.measuring.conditions import CpuTimes, conditions_of, foreign_cores
from miniinfer_cli.measuring.load import MOST_ARRIVALS, Load, Scenario, run_load
from miniinfer_cli.measuring.load_summary import asserted_times, summarize_load
from miniinfer_cli.measuring.load_systems import Batched, Contexts, WallClock, frozen_collector
from miniinfer_cli.serving.batcher import Batcher
from miniinfer_cli.serving.layout import find_layout

_LOAD_FLAGS = ("samples_per_query", "max_queue", "max_batch", "max_delay")
_OTHERS = ("top", "trace", "all_points", "sweep_state", "transfers")  # flags that mean nothing under load
_MOST_SAMPLES = 64  # different requests, sent in turn
_SAMPLES_NBYTES = 256 << 20  # that they take at most
_UNBOUNDED = 1 << 30
_DELAY_MS = 2.0  # the Batcher's own


@dataclass(frozen=True, slots=True)
class LoadWanted:
    """What comes, and who answers: contexts alone, or a Batcher where ``max_batch`` or ``max_delay_ms`` is given."""

    load: Load
    max_queue: int
    max_batch: int | None
    max_delay_ms: float | None
    budget_ms: float | None

    @property
    def batched(self) -> bool:
        """Whether a Batcher puts requests together."""
        return self.max_batch is not None or self.max_delay_ms is not None


def load_flags(command: flags.Command) -> flags.Command:
    """What comes, and who answers; gives the command ``load``, a LoadWanted, or None where no load is asked for."""

    @functools.wraps(command)
    def with_load(
        *args: Any, wanted: Wanted, scenario: str | None, qps: float | None, samples_per_query: int, max_queue: int,
        max_batch: int | None, max_delay: float | None, latency_budget: float | None, **kwargs: Any,
    ) -> Any:  # fmt: skip
        if scenario is None and qps is None:
            unheeded = flags.typed(_LOAD_FLAGS)
            if unheeded:
                raise UsageError(f"{', '.join(unheeded)}: there is no load", hint="add --qps R, or --scenario NAME")
            return command(*args, wanted=wanted, latency_budget=latency_budget, load=None, **kwargs)
        chosen = _scenario(scenario, qps)
        if wanted.swept is not None:
            several = " and ".join(flags.typed(("streams", "batches")))
            raise UsageError(f"{several}: a load takes one setting", hint="give one value; leave the load out to sweep several")
        unheeded = flags.typed(_OTHERS)
        if unheeded:
            raise UsageError(f"{', '.join(unheeded)}: means nothing under load", hint="leave it out, or --qps and --scenario")
        _expect_scenario("--samples-per-query", chosen, Scenario.MULTI_STREAM, flags.typed(("samples_per_query",)))
        _expect_scenario("--max-queue", chosen, Scenario.SERVER, flags.typed(("max_queue",)))
        if latency_budget is not None and chosen is Scenario.OFFLINE:
            hint = "leave it out: throughput is what counts there"
            raise UsageError("--latency-budget: the one query of --scenario offline has no latency to keep to", hint=hint)
        width = samples_per_query if chosen is Scenario.MULTI_STREAM else 1
        schedule = wanted.schedule
        most = max(schedule.iterations, schedule.duration_s * (qps or 0)) * width
        if most > MOST_ARRIVALS:
            raise UsageError(
                f"--qps, --duration and --iterations make {most:.0f} requests, {MOST_ARRIVALS} at most are sent",
                hint="measure for a shorter --duration",
            )
        made = Load(chosen, schedule.iterations, schedule.duration_s, qps, width, wanted.seed)
        limit = max_queue if chosen is Scenario.SERVER else _UNBOUNDED
        return command(*args, wanted=wanted, latency_budget=latency_budget,
                       load=LoadWanted(made, limit, max_batch, max_delay, latency_budget), **kwargs)  # fmt: skip

    return flags.together(
        click.option("--scenario", type=click.Choice([str(s) for s in Scenario]),
                     help="Measure under load: requests come as in this scenario of MLPerf."),
        click.option("--qps", type=FiniteRange(0, min_open=True), metavar="R",
                     help="Measure under load: so many requests a second come by chance (--scenario server)."),
        click.option("--samples-per-query", type=click.IntRange(1, 1 << 16), default=8, show_default=True, metavar="N",
                     help="In --scenario multi-stream, so many requests come at once."),
        click.option("--max-queue", type=click.IntRange(1, _UNBOUNDED), default=1024, show_default=True, metavar="N",
                     help="In --scenario server, so many requests wait at most; more are dropped."),
        click.option("--max-batch", type=click.IntRange(1, _UNBOUNDED), metavar="N",
                     help="Under load, put requests together in batches of up to so many rows (docs/batching.md)."),
        click.option("--max-delay", type=FiniteRange(0), metavar="MS",
                     help="Under load, let a request wait so long for others of its batch; 2 with --max-batch."),
    )(with_load)  # fmt: skip


def _scenario(named: str | None, qps: float | None) -> Scenario:
    chosen = Scenario.SERVER if named is None else Scenario(named)
    if chosen is Scenario.SERVER and qps is None:
        raise UsageError("--scenario server: how many requests come is not said", hint="add --qps R, requests a second")
    if chosen is not Scenario.SERVER and qps is not None:
        hint = "leave --qps out, or take --scenario server, where requests come by chance"
        raise UsageError(f"--qps: in --scenario {chosen} requests come when others have ended", hint=hint)
    return chosen


def _expect_scenario(flag: str, chosen: Scenario, only: Scenario, typed: Sequence[str]) -> None:
    if typed and chosen is not only:
        raise UsageError(f"{flag}: means nothing in --scenario {chosen}", hint=f"it is for --scenario {only}: leave it out")


def profile_load(
    wanted: Wanted, asked: LoadWanted, asserts: Asserts, printer: Printer, json_file: Path | None, report: Path | None
) -> None:
    """Measures under load, and prints and writes what came out; after Ctrl-C what there is, and raises KeyboardInterrupt.

    Raises UsageError where the plan cannot be batched as asked, what a request failed with, and CheckFailed where an assertion
    does not hold.
    """
    if asked.load.scenario is Scenario.OFFLINE and asserts.latency:
        hint = "assert its throughput: --assert-throughput '>1000'"
        raise UsageError("--assert-latency: the one query of --scenario offline has no latency", hint=hint)
    check_outputs([Output("--json", json_file, json=True), Output("--report", report)], wanted.sources())
    with opened(wanted, printer) as bench, _serving(bench, asked) as serving:
        identity = {**identity_of(bench), **serving.identity(bench)}
        extents = {
            "warm-up": Extent(seconds=wanted.schedule.warmup_ms / 1e3),
            "requests": Extent(asked.load.queries * asked.load.width, asked.load.seconds),
        }
        with printer.progress(extents) as progress:
            progress("warm-up", 0)
            serving.system.warm_up(wanted.schedule.warmup_ms / 1e3)
            before = CpuTimes.now()
            with frozen_collector():
                log = run_load(asked.load, serving.system, WallClock(), progress)
            foreign = foreign_cores(before, CpuTimes.now())
        served = serving.figures()
        gpu_state = bench.engine.model.state()
        conditions = conditions_of(
            foreign, gpu_state, (), cores=identity["host"]["cores"], on_cpu=bench.engine.device == "cpu",
            own_threads=served["contexts"] * identity["device_facts"].get("threads", 1) + 1,  # and who sends
        )  # fmt: skip
    summary = summarize_load(
        asked.load,
        log,
        serving.rows,
        budget_ms=asked.budget_ms,
        percentiles=wanted.percentiles,
        advice="a larger --max-batch, or more --streams, may compute more"
        if asked.batched
        else "--max-batch N computes several at once",
    )
    identity["settings"] = {**identity["settings"], **_settings(asked)}
    asserted = [] if log.interrupted else asserts.check_load(*asserted_times(asked.load, log), serving.rows, conditions)
    result = LoadResult(summary, served, log.interrupted, identity, gpu_state, conditions)
    print_load(printer, result)
    print_assertions(printer, asserted)
    if json_file is not None:
        write_json(json_file, {**load_to_json(result), "assertions": [one.to_json() for one in asserted]})
    if report is not None:
        write_report(report, load_to_json(result))
    if log.interrupted:
        raise KeyboardInterrupt
    expect_held(asserted, asserts.strict, str(wanted.plan))


def _settings(asked: LoadWanted) -> dict[str, Any]:
    """The flags of a load, by stable keys; null where a scenario has no such thing."""
    load = asked.load
    return {
        "scenario": str(load.scenario),
        "qps": load.rate,
        "samples_per_query": load.width if load.scenario is Scenario.MULTI_STREAM else None,
        "max_queue": asked.max_queue if load.scenario is Scenario.SERVER else None,
        "max_batch": asked.max_batch,
        "max_delay_ms": asked.max_delay_ms,
        "latency_budget_ms": asked.budget_ms,
    }


@dataclass(frozen=True, slots=True)
class _Serving:
    """What answers, and the requests that it is given. ``rows``: samples of each; None where inputs share no batch."""

    system: Contexts | Batched
    samples: Sequence[Mapping[str, Any]]
    rows: int | None
    figures: Callable[[], dict[str, Any]]
    """What is to be told of who answered, by stable keys."""

    def identity(self, bench: Bench) -> dict[str, Any]:
        """What the document says of inputs otherwise than for one inference."""
        shapes = {name: list(a.shape) for name, a in self.samples[0].items() if isinstance(a, np.ndarray)}
        inputs = [{**i, "shape": shapes.get(i["name"], i["shape"])} for i in identity_of(bench)["inputs"]]
        return {"inputs": inputs, "batch": self.rows}


@contextmanager
def _serving(bench: Bench, asked: LoadWanted) -> Iterator[_Serving]:
    """Contexts, as many as ``--streams`` says; with a Batcher as many as it says, or the Batcher's own number."""
    engine, wanted = bench.engine, bench.wanted
    if not asked.batched:
        samples = _samples(bench, lambda inputs: inputs)
        with Contexts(engine, samples, streams=wanted.streams, max_queue=asked.max_queue) as contexts:
            yield _Serving(contexts, samples, bench.batch, lambda: {"by": "contexts", "contexts": wanted.streams})
        return
    streams = wanted.streams if flags.typed(("streams",)) else None
    delay_ms = _DELAY_MS if asked.max_delay_ms is None else asked.max_delay_ms
    layout = find_layout(engine, wanted.batch_dim, {})
    with Batcher(engine, asked.max_batch, delay_ms, asked.max_queue, streams, batch_dim=wanted.batch_dim) as batcher:
        whole = wanted.batch is not None or bench.given or bench.shapes

        def request(inputs: Mapping[str, Any]) -> dict[str, Any]:
            """What callers give: one row, where nothing says how many."""
            own = {b.name: inputs[b.name] for b in layout.inputs}
            if whole:
                return own
            return {b.name: own[b.name].take([0], axis) for b, axis in zip(layout.inputs, layout.axes, strict=True)}

        samples = _samples(bench, request)
        rows = samples[0][layout.inputs[0].name].shape[layout.axes[0]]

        def figures() -> dict[str, Any]:
            stats = batcher.stats()
            counts = {key: stats[key] for key in ("contexts", "batch_sizes", "batches", "mean_batch", "rows_of_padding")}
            return {"by": "batcher", "max_delay_ms": delay_ms, **counts}

        yield _Serving(Batched(batcher, samples), samples, rows, figures)


def _samples(bench: Bench, request: Callable[[Mapping[str, Any]], Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Requests of different random contents; as many as memory is spent on, and one where all inputs come from files."""
    made = [request(bench.feeds)]
    nbytes = sum(a.nbytes for a in made[0].values() if isinstance(a, np.ndarray))
    drawn = any(b.name not in bench.given for b in bench.engine.inputs)
    count = max(1, min(_MOST_SAMPLES, _SAMPLES_NBYTES // max(nbytes, 1))) if drawn else 1
    seeds = range(bench.wanted.seed + 1, bench.wanted.seed + count)
    made += [request(feeds_for(bench.engine, bench.given, bench.shapes, seed)) for seed in seeds]
    return made
