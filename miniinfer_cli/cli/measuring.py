"""Measuring a plan, for run and profile: it is opened and described, its inputs are made, it is measured and summed up."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np

from miniinfer_cli import __version__
from miniinfer_cli.cli.batch_flag import batch_dimension
from miniinfer_cli.cli.feeds import feeds_for, read_inputs
from miniinfer_cli.cli.last_resort import last_resort
from miniinfer_cli.cli.progress import Extent
from miniinfer_cli.cli.report import Printer, print_rates, print_state, print_summary, results_head
from miniinfer_cli.cli.wanted import Wanted, settings_of
from miniinfer_cli.devices.head_start import head_start
from miniinfer_cli.devices.machine import host_facts, versions
from miniinfer_cli.devices.opening import load
from miniinfer_cli.devices.several import device_names, open_beside
from miniinfer_cli.errors import UsageError
from miniinfer_cli.measuring.benchmark import measure_together
from miniinfer_cli.measuring.conditions import Conditions, CpuTimes, conditions_of, foreign_cores
from miniinfer_cli.measuring.histogram import histogram
from miniinfer_cli.measuring.metrics import Samples, Summary, summarize
from miniinfer_cli.measuring.timeline import INFERENCES, Timeline, record_timeline
from miniinfer_cli.measuring.trace_events import trace_events
from miniinfer_cli.plugins import load_plugins
from miniinfer_cli.report.figures import size_of
from miniinfer_cli.runtime.bindings import Binding
from miniinfer_cli.runtime.engine import Engine


@dataclass(frozen=True, slots=True)
class Measured:
    """What was measured. ``identity`` says of what, how and where; ``state`` is the GPU's, right after; empty on a CPU.

    ``conditions``: what went on meanwhile.
    """

    identity: Mapping[str, Any]
    samples: Samples
    summary: Summary
    state: Mapping[str, Any]
    conditions: Conditions
    shares: tuple["Share", ...] = ()
    """What each of several GPUs came to; the rest is of all together, but for the ``state``, which is the first one's."""

    def print(self, printer: Printer) -> None:
        """The performance summary, and the state of the GPU."""
        for share in self.shares:
            share.print(printer)
        print_summary(printer, self.summary)
        threads = self.identity["device_facts"].get("threads")
        if threads is not None:
            printer.line(f"Threads of each stream: {threads}")
        print_state(printer, self.state)
        for flag in self.conditions.flags:
            printer.line(f"hint: {flag}")

    def to_json(self, kind: str) -> dict[str, Any]:
        """The same with stable keys, as docs/results.md describes a document of this kind."""
        rest = {
            "latency_histogram": histogram(self.samples.latency_ms).to_json(),
            "gpu_state": self.state,
            "conditions": self.conditions.to_json(),
            **({"devices": [share.to_json() for share in self.shares]} if self.shares else {}),
        }
        return {**results_head(kind), **self.identity, **self.summary.to_json(), **rest}

    def times_to_json(self) -> dict[str, Any]:
        """The times of every inference, in ms, stream by stream in order of completion; see docs/results.md."""
        columns = {
            "latency_ms": self.samples.latency_ms,
            "end_to_end_ms": self.samples.end_to_end_ms,
            "h2d_ms": self.samples.copies_in_ms,
            "compute_ms": self.samples.compute_ms,
            "d2h_ms": self.samples.copies_out_ms,
        }
        known = {name: times for name, times in columns.items() if times}
        inferences = [dict(zip(known, times, strict=True)) for times in zip(*known.values(), strict=True)]
        return {**results_head("times"), **self.identity, "inferences": inferences}

    def trace_to_json(self, timeline: Timeline) -> dict[str, Any]:
        """The timeline of further inferences in the trace event format; see docs/report.md."""
        about = {key: self.identity[key] for key in ("date", "plan", "plan_digest", "versions")}
        return trace_events(timeline, self.identity["device"], about)


@dataclass(frozen=True, slots=True)
class Share:
    """What one of several GPUs came to, while all of them ran. ``state``: that GPU, right after."""

    device: str
    facts: Mapping[str, Any]
    summary: Summary
    state: Mapping[str, Any]

    def print(self, printer: Printer) -> None:
        """Its rates and times in two lines, and its state in one."""
        printer.section(f"{self.device}: {self.facts['name']}")
        print_rates(printer, self.summary)
        print_state(printer, self.state)

    def to_json(self) -> dict[str, Any]:
        """The same with stable keys; see docs/results.md."""
        return {"device": self.device, "device_facts": self.facts, **self.summary.to_json(), "gpu_state": self.state}


@dataclass(frozen=True, slots=True)
class Bench:
    """A plan opened on its device, and its inputs: ``feeds`` by name, ``arrays`` as the engine takes them.

    ``given``: the arrays of files, by input; ``shapes``: those that flags give, also by the batch. ``others``: engines of the
    plan on further GPUs, which are measured at the same time.
    """

    wanted: Wanted
    engine: Engine
    given: Mapping[str, Any]
    shapes: Mapping[str, Sequence[int]]
    feeds: dict[str, Any]
    arrays: list[Any]
    others: tuple[Engine, ...] = ()

    @classmethod
    def of(cls, wanted: Wanted, engine: Engine, given: Mapping[str, Any], others: tuple[Engine, ...] = ()) -> "Bench":
        """With inputs of the shapes that are wanted. Raises UsageError where they do not fit the plan."""
        shapes = dict(wanted.shapes)
        if wanted.batch is not None:
            dimension = batch_dimension(engine.inputs, wanted.batch_dim)
            shapes |= dimension.shapes(wanted.batch, engine.inputs, engine.ranges, wanted.shapes, given)
        feeds = feeds_for(engine, given, shapes, wanted.seed)
        return cls(wanted, engine, given, shapes, feeds, engine.check(feeds), others)

    @property
    def engines(self) -> tuple[Engine, ...]:
        """All of them."""
        return (self.engine, *self.others)

    def at(self, streams: int, batch: int | None) -> "Bench":
        """The same with other settings; the inputs are as they are where the batch is."""
        wanted = replace(self.wanted, streams=streams, batch=batch)
        if batch == self.wanted.batch:
            return replace(self, wanted=wanted)
        return Bench.of(wanted, self.engine, self.given, self.others)

    @property
    def batch(self) -> int | None:
        """What ``--batch`` says; without it the leading size that all inputs with a shape share; None when they do not."""
        if self.wanted.batch is not None:
            return self.wanted.batch
        sizes = {a.shape[0] for a in self.arrays if isinstance(a, np.ndarray) and a.ndim}
        return sizes.pop() if len(sizes) == 1 else None

    @property
    def notes(self) -> list[str]:
        """What the user should know of how the plan was opened, and of flags that change nothing."""
        told = [*self.engine.notes]
        if self.engine.states is not None:
            told.append("every inference that is measured is the first of its context: states are zeros, caches hold no rows")
        if self.engine.device != "cpu":
            return [*told, *([] if self.wanted.gpu.threads is None else ["--threads changes nothing on a GPU"])]
        if not self.wanted.gpu_flags:
            return told
        change = "changes" if len(self.wanted.gpu_flags) == 1 else "change"
        return [*told, f"{', '.join(self.wanted.gpu_flags)} {change} nothing on a CPU"]

    def measure(self, printer: Printer) -> Measured:
        """Runs it as long as is wanted."""
        wanted = self.wanted
        identity = identity_of(self)
        schedule = wanted.schedule
        extents = {
            "warm-up": Extent(seconds=schedule.warmup_ms / 1e3),
            "inferences": Extent(schedule.iterations, schedule.duration_s),
            "enqueue times": Extent(seconds=schedule.duration_s / 10),  # at most a tenth of what the inferences took
        }
        before = CpuTimes.now()
        with printer.progress(extents) as progress:
            samples, each = measure_together(
                self.engines, self.arrays, wanted.schedule, streams=wanted.streams, progress=progress
            )
        foreign = foreign_cores(before, CpuTimes.now())
        state, *_ = states = [e.model.state() for e in self.engines]
        conditions = conditions_of(
            foreign, state, samples.latency_ms if wanted.streams == 1 else (), cores=identity["host"]["cores"],
            own_threads=wanted.streams * identity["device_facts"].get("threads", 1), on_cpu=self.engine.device == "cpu",
        )  # fmt: skip
        summary = summarize(samples, self.batch, wanted.percentiles)
        if not self.others:
            return Measured(identity, samples, summary, state, conditions)
        shares = tuple(
            Share(e.device, e.model.facts(), summarize(own, self.batch, wanted.percentiles), its_state)
            for e, own, its_state in zip(self.engines, each, states, strict=True)
        )
        return Measured(identity, samples, summary, state, conditions, shares)

    def timeline(self, printer: Printer) -> Timeline:
        """What a few more inferences do when."""
        with printer.progress({"timeline": Extent(INFERENCES)}) as progress:
            return record_timeline(self.engine, self.arrays, self.wanted.schedule, streams=self.wanted.streams, progress=progress)


def identity_of(bench: Bench) -> dict[str, Any]:
    """What is run, how, where and when: enough to tell two results apart, and to measure once more."""
    wanted, engine = bench.wanted, bench.engine
    files = {name: str(path) for name, path in wanted.inputs}
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "plan": str(wanted.plan),
        "plan_digest": engine.plan.digest,
        "plan_producer": engine.plan.report.producer,
        "weights_bytes": engine.plan.weights_nbytes,
        "device": ",".join(e.device for e in bench.engines),
        "device_facts": engine.model.facts(),
        "host": host_facts(),
        "versions": {"miniinfer": __version__, **versions(engine.device)},
        "inputs": [
            {
                **_binding(b, bench.feeds[b.name]),
                "source": files.get(b.name, "random" if b.default is None or b.name in bench.shapes else "default"),
            }
            for b in engine.inputs
        ],
        "outputs": [_binding(b, None) for b in engine.outputs],
        "batch": bench.batch,
        "settings": settings_of(wanted),
        "notes": bench.notes,
    }


def _binding(binding: Binding, value: Any) -> dict[str, Any]:
    """A binding's name, type, and shape: that of ``value``, or as declared, with the names of what is open."""
    shape = value.shape if isinstance(value, np.ndarray) else binding.shape
    return {"name": binding.name, "type": str(binding.type or "?"), "shape": None if shape is None else list(shape)}


@contextmanager
def opened(wanted: Wanted, printer: Printer) -> Iterator[Bench]:
    """The plan on its device, and its inputs; both are told to the user. Raises UsageError for a forced tactic on a CPU."""
    load_plugins(wanted.plugins)
    names = device_names(wanted.device)
    with head_start(wanted.plan, names[0], wanted.gpu.scheduling):
        engine = load(wanted.plan, names[0], wanted.gpu)
    with ExitStack() as stack:
        stack.enter_context(engine)
        others = open_beside(engine, names[1:], stack)
        for one in (engine, *others.values()):
            stack.enter_context(last_resort(one))
        if engine.device == "cpu" and wanted.gpu.tactics:
            node, key = next(iter(wanted.gpu.tactics.items()))
            told = f"--tactic: {node!r} cannot be done by {key!r}: on a CPU there are no tactics to choose among"
            raise UsageError(told, hint="leave --tactic out, or run on a GPU: --device cuda:0")
        given = read_inputs(engine.inputs, wanted.inputs, wanted.shapes, engine.constant_inputs)
        bench = Bench.of(wanted, engine, given, tuple(others[name] for name in names[1:]))
        _print_bench(printer, bench)
        _print_program(printer, bench)
        yield bench


def _print_bench(printer: Printer, bench: Bench) -> None:
    """What is run, where, on what."""
    engine = bench.engine
    printer.line(f"Plan: {bench.wanted.plan} ({size_of(engine.plan.weights_nbytes)} of weights)")
    printer.line(f"Device{'s' * bool(bench.others)}: {', '.join(e.device for e in bench.engines)}")
    for note in bench.notes:
        printer.line(f"note: {note}")
    for b in engine.inputs:
        value = bench.feeds[b.name]
        got = "x".join(map(str, value.shape)) if isinstance(value, np.ndarray) else type(value).__name__
        printer.line(f"Input: {b} <- {got or 'scalar'}")
    for b in engine.outputs:
        printer.line(f"Output: {b}")


def _print_program(printer: Printer, bench: Bench) -> None:
    """On a GPU: what runs there, what does not, and why."""
    engine = bench.engine
    if engine.device == "cpu":
        return
    from miniinfer_cli.devices.placement import placement_in  # late: brings the lowerings, which a CPU does not need

    told = len(engine.notes)
    placement = placement_in(engine.program(bench.arrays))
    for line in placement.lines() if placement is not None else ():
        printer.line(line)
    for note in engine.notes[told:]:  # kernels that are not trusted were compiled
        printer.line(f"note: {note}")
    w = engine.stats()["weights"]
    rate = w["nbytes"] / max(w["preload_s"], 1e-9) / 1e9
    printer.line(
        f"Weights: {w['tensors']} tensors, {size_of(w['nbytes'])} in {w['preload_s'] * 1e3:.1f} ms ({rate:.1f} GB/s);"
        f" look-ups: {w['preloaded_hits']} preloaded, {w['derived_hits']} derived, {w['late_copies']} late copies"
    )
    for other in bench.others:
        w = other.stats()["weights"]
        printer.line(f"Weights on {other.device}: from {w['copied_from'] or 'the file'} in {w['preload_s'] * 1e3:.1f} ms")
