"""``profile`` under load: requests that come by one of MLPerf's scenarios, and what becomes of them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from miniinfer_cli.cli import flags
from miniinfer_cli.cli.asserting import Asserts, expect_held, print_assertions
from miniinfer_cli.cli.feeds import feeds_for
from miniinfer_cli.cli.load_report import LoadResult, load_to_json, print_load
from miniinfer_cli.cli.load_wanted import LoadWanted
from miniinfer_cli.cli.measuring import Bench, identity_of, opened
from miniinfer_cli.cli.outputs import Output, check_outputs
from miniinfer_cli.cli.pictures import write_report
from miniinfer_cli.cli.progress import Extent
from miniinfer_cli.cli.report import Printer, write_json
from miniinfer_cli.cli.wanted import Wanted
from miniinfer_cli.errors import UsageError
from miniinfer_cli.measuring.conditions import CpuTimes, conditions_of, foreign_cores
from miniinfer_cli.measuring.load import Scenario, run_load
from miniinfer_cli.measuring.load_summary import asserted_times, summarize_load
from miniinfer_cli.measuring.load_systems import Batched, Contexts, WallClock, frozen_collector
from miniinfer_cli.serving.batcher import Batcher
from miniinfer_cli.serving.layout import find_layout

_MOST_SAMPLES = 64  # different requests, sent in turn
_SAMPLES_NBYTES = 256 << 20  # that they take at most
_DELAY_MS = 2.0  # the Batcher's own


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
    identity["settings"] = {**identity["settings"], **asked.settings()}
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
        count = wanted.streams * len(bench.engines)
        with Contexts(bench.engines, samples, streams=wanted.streams, max_queue=asked.max_queue) as contexts:
            yield _Serving(contexts, samples, bench.batch, lambda: {"by": "contexts", "contexts": count})
        return
    streams = wanted.streams if flags.typed(("streams",)) else None
    delay_ms = _DELAY_MS if asked.max_delay_ms is None else asked.max_delay_ms
    layout = find_layout(engine, wanted.batch_dim, {})
    devices = [e.device for e in bench.engines] if bench.others else None
    with Batcher(
        engine, asked.max_batch, delay_ms, asked.max_queue, streams, batch_dim=wanted.batch_dim, devices=devices
    ) as batcher:
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
            if bench.others:
                counts["devices"] = {name: {k: d[k] for k in ("batches", "rows")} for name, d in stats["devices"].items()}
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
