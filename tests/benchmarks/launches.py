"""What launches cost: networks launched step by step and as one CUDA graph, beside what launches times their cost say.

    python -m tests.benchmarks.launches [--model bert_base lstm_tagger] [--batch 1 4 8 16] [--out FILE] [--markdown FILE]

Inputs and outputs stay on the device. *Wall*: K inferences enqueued back to back, one wait, divided by K. *Enqueue*: the host's
time for one. *Device*: a captured replay by events. All in one process, the two ways in turns, medians of the rounds. What a
launch costs is measured in the same run: chains of short kernels of two lengths, whose difference leaves everything else out.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import miniinfer_cli
from engine_format import Plan
from miniinfer_cli.backends.cuda.contract.program import CudaProgram, DeviceStep
from miniinfer_cli.backends.cuda.contract.steps import Repeat
from miniinfer_cli.backends.cuda.loading.loaded_program import LoadedProgram
from miniinfer_cli.planning.freeze import freeze
from miniinfer_cli.runtime.engine import Engine
from sample_models.catalogue import generate
from sample_models.request import Request
from tests.gpu.plans import sizes_of
from tests.graph_text import typed_graph

SEQUENCES = {"bert_base": 128, "lstm_tagger": 64}
CHAINS = (32, 288)
"""Kernels of the two chains."""
_ROUND_S = 0.03
_COLUMNS = (
    *("network", "batch", "launches", "device µs"),
    *("launches × cost", "enqueue", "wall by theory", "wall", "overhead"),
    *("graph: enqueue", "graph: wall", "graph: overhead"),
)


@dataclass(frozen=True, slots=True)
class Cost:
    """Microseconds of one more launch: of the host and of the device, one by one and within a graph."""

    enqueue_us: float
    wall_us: float
    graph_enqueue_us: float
    graph_wall_us: float


@dataclass(frozen=True, slots=True)
class Measured:
    """One network at one batch: things that the device is asked to do, and microseconds of an inference either way."""

    model: str
    batch: int
    launches: int
    wall_us: float
    enqueue_us: float
    graph_wall_us: float
    graph_enqueue_us: float
    device_us: float

    def expected_us(self, cost: Cost) -> float:
        """Wall with no graph, by theory: the host's launches, or the device's work where that takes longer."""
        return max(self.launches * cost.enqueue_us, self.device_us)

    @property
    def overhead_us(self) -> float:
        """What launching one by one adds to the work of the device."""
        return self.wall_us - self.device_us

    @property
    def graph_overhead_us(self) -> float:
        """What one launch of everything adds."""
        return self.graph_wall_us - self.device_us


def markdown(cost: Cost, rows: Sequence[Measured]) -> str:
    """Both tables."""
    lines = [
        "| one more launch | host µs | wall µs |",
        "|---|---|---|",
        f"| one by one | {cost.enqueue_us:.2f} | {cost.wall_us:.2f} |",
        f"| in a graph | {cost.graph_enqueue_us:.2f} | {cost.graph_wall_us:.2f} |",
        "",
        "| " + " | ".join(_COLUMNS) + " |",
        "|---" * len(_COLUMNS) + "|",
    ]
    for row in rows:
        cells = [
            *(row.model, str(row.batch), str(row.launches), f"{row.device_us:.0f}"),
            *(f"{row.launches * cost.enqueue_us:.0f}", f"{row.enqueue_us:.0f}"),
            *(f"{row.expected_us(cost):.0f}", f"{row.wall_us:.0f}", f"{row.overhead_us:.0f}"),
            *(f"{row.graph_enqueue_us:.1f}", f"{row.graph_wall_us:.0f}", f"{row.graph_overhead_us:.1f}"),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def launches_of(program: CudaProgram) -> int:
    """Launches, copies, fills and library calls of an inference, each round of what repeats counted."""
    actions = (a for s in program.steps if isinstance(s, DeviceStep) for a in s.actions)
    return sum(a.rounds * len(a.actions) if isinstance(a, Repeat) else 1 for a in actions)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="+", default=list(SEQUENCES), choices=list(SEQUENCES))
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 4, 8, 16])
    parser.add_argument("--rounds", type=int, default=9, help="of each way")
    parser.add_argument("--out", type=Path, help="where the numbers go as JSON")
    parser.add_argument("--markdown", type=Path, help="where the tables go")
    options = parser.parse_args()
    rows: list[Measured] = []
    with tempfile.TemporaryDirectory() as folder:
        cost = launch_cost(Path(folder), options.rounds)
        print(cost, flush=True)
        for model in options.model:
            plan = miniinfer_cli.build(generate(model, Request("batch", SEQUENCES[model]), dtype="f16", seed=1))
            for row in measure(model, plan, options.batch, options.rounds, Path(folder)):
                print(row, flush=True)
                rows.append(row)
    print(markdown(cost, rows))
    if options.out is not None:
        options.out.write_text(json.dumps({"cost": asdict(cost), "rows": [asdict(r) for r in rows]}, indent=1) + "\n")
    if options.markdown is not None:
        options.markdown.write_text(markdown(cost, rows))


def launch_cost(cache: Path, rounds: int) -> Cost:
    """What one more launch costs, by chains of short kernels."""
    few, many = CHAINS
    found: list[float] = []
    for cuda_graph in (False, True):
        with ExitStack() as stack:
            # Kernels may not begin early: each is to cost what it costs behind any other.
            options = {"cuda_graph": cuda_graph, "pdl": False, "cache": cache}
            plans = [freeze(typed_graph(chain(n))) for n in CHAINS]
            engines = [stack.enter_context(miniinfer_cli.load(p, "cuda:0", **options)) for p in plans]
            runs = [Run(engine, feeds_of(engine, 1), stack) for engine in engines]
            for time_us in (Run.enqueue_us, Run.wall_us):
                short, long = in_turns([partial(time_us, r) for r in runs], rounds)
                found.append((long - short) / (many - few))
    return Cost(*found)


def chain(length: int) -> str:
    """A graph of so many kernels, each of a few elements and behind the last."""
    names = ["x", *(f"v{i}" for i in range(length))]
    lines = "".join(f"  {names[i + 1]} = Softmax({names[i]})\n" for i in range(length))
    return f"graph main(x: f32[batch,8]) {{\n{lines}  return {names[-1]}\n}}"


def measure(model: str, plan: Plan, batches: Sequence[int], rounds: int, cache: Path) -> Iterator[Measured]:
    """A row for each batch."""
    with ExitStack() as stack:
        engines = [stack.enter_context(miniinfer_cli.load(plan, "cuda:0", cuda_graph=g, cache=cache)) for g in (False, True)]
        for batch in batches:
            with ExitStack() as closing:
                apart, graph = (Run(engine, feeds_of(engine, batch), closing) for engine in engines)
                walls = in_turns([apart.wall_us, graph.wall_us], rounds)
                enqueues = in_turns([apart.enqueue_us, graph.enqueue_us], rounds)
                (device,) = in_turns([graph.device_us], 5 * rounds)
                times = (walls[0], enqueues[0], walls[1], enqueues[1], device)
                yield Measured(model, batch, launches_of(graph.program.made), *times)


def in_turns(ways: Sequence[Callable[[], float]], rounds: int) -> list[float]:
    """The median of each way's times, measured in turns from the first and from the last."""
    times: list[list[float]] = [[] for _ in ways]
    for turn in range(rounds):
        for number in range(len(ways)) if turn % 2 else reversed(range(len(ways))):
            times[number].append(ways[number]())
    return [statistics.median(t) for t in times]


class Run:
    """One engine's context, warm: its third inference is captured where it is to be."""

    def __init__(self, engine: Engine, feeds: Mapping[str, Any], closing: ExitStack) -> None:
        self._inputs = engine.check(feeds)
        program = engine.program(self._inputs)
        assert isinstance(program, LoadedProgram)
        self.program = program
        self._context = closing.enter_context(engine.create_context())
        for _ in range(5):
            self._start().result()
        started = time.perf_counter()
        self._start().wait()
        self._count = max(4, int(_ROUND_S / max(time.perf_counter() - started, 1e-5)))

    def _start(self) -> Any:
        return self._context.start(self._inputs, transfers=False)

    def wall_us(self) -> float:
        """Of an inference, of many back to back."""
        started = time.perf_counter()
        for _ in range(self._count):
            last = self._start()
        last.wait()
        return (time.perf_counter() - started) / self._count * 1e6

    def enqueue_us(self) -> float:
        """Of the host, for one inference while the device has nothing else to do."""
        times = []
        for _ in range(16):
            started = time.perf_counter()
            pending = self._start()
            times.append(time.perf_counter() - started)
            pending.wait()
        return statistics.median(times) * 1e6

    def device_us(self) -> float:
        """Of one replay of the captured graph, by events."""
        pending = self._context._device.replay(self.program, self._inputs, timed=True)
        pending.wait()
        assert pending.times_ms is not None
        return pending.times_ms[1] * 1e3


def feeds_of(engine: Engine, batch: int) -> dict[str, Any]:
    """Numbers for the inputs: small indices, so that every table has them."""
    random, feeds = np.random.default_rng(0), {}
    for binding in engine.inputs:
        shape, is_index = sizes_of(binding, batch), np.issubdtype(binding.dtype, np.integer)
        feeds[binding.name] = (random.integers(0, 2, shape) if is_index else random.standard_normal(shape)).astype(binding.dtype)
    return feeds


if __name__ == "__main__":
    main()
