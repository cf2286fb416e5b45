"""What it gives that kernels begin before those in front of them have ended: networks with and without, in turns, in one process.

    python -m tests.benchmarks.early_launches [--model NAME ...] [--batch 1 8 ...] [--streams 1 4 ...] [--out FILE]
    python -m tests.benchmarks.early_launches --chains    # of nodes of one family each, no network

Wall per inference: inputs and outputs stay on the device, K inferences are enqueued, to the streams in turns, then one wait.
Medians of the rounds, and the median of the paired ratios with its quartiles. Networks are generated, in f16.
"""

import argparse
import json
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

import miniinfer_cli
from engine_format import Plan
from miniinfer_cli.backends.cuda.contract.program import CudaProgram, DeviceStep
from miniinfer_cli.backends.cuda.contract.steps import Launch, flat
from miniinfer_cli.backends.cuda.loading.loaded_program import LoadedProgram
from miniinfer_cli.backends.cuda.scheduling.programmatic_edges import begin_early
from miniinfer_cli.planning.freeze import freeze
from miniinfer_cli.runtime.bindings import Binding
from miniinfer_cli.runtime.engine import Engine
from sample_models.catalogue import generate
from sample_models.request import Request
from tests.gpu.plans import sizes_of
from tests.graph_text import typed_graph

NETWORKS = ("resnet50", "mobilenet_v2", "efficientnet_b0", "bert_base", "vit_b16", "gpt2")
_SEQUENCE = 128
_ROUND_S = 0.03
_CHAIN = 24  # nodes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="+", default=list(NETWORKS))
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 8])
    parser.add_argument("--streams", nargs="+", type=int, default=[1, 4])
    parser.add_argument("--rounds", type=int, default=9, help="of each way")
    parser.add_argument("--chains", action="store_true", help="chains of one family's kernels instead of networks")
    parser.add_argument("--out", type=Path, help="where the rows go as JSON, too")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        plans: Mapping[str, Any] = chains() if options.chains else build_all(options.model, Path(folder))
        rows = []
        for name in plans:
            for row in measure(name, plans[name], options.batch, options.streams, options.rounds, Path(folder) / "cache"):
                rows.append(row)
                print(line_of(row), flush=True)
                if options.out is not None:
                    options.out.write_text(json.dumps(rows, indent=1) + "\n")


def build_all(names: list[str], folder: Path) -> dict[str, Path]:
    """The plans, each built by a process of its own."""
    plans = {name: folder / f"{name}.plan" for name in names}
    with multiprocessing.get_context("spawn").Pool(len(plans)) as pool:
        pool.starmap(_build, [(name, str(path)) for name, path in plans.items()])
    return plans


def _build(name: str, path: str) -> None:
    miniinfer_cli.build(generate(name, Request("batch", _SEQUENCE), dtype="f16", seed=1), path)


def chains() -> dict[str, Plan]:
    """Plans of many nodes of one family, one behind the other, in f16: no pass has fused them."""
    tokens, images = "f16[n,128,768]", "f16[n,64,28,28]"
    channels = ", ".join(f"c{i}: f16[64]" for i in range(4))
    families = {
        "pointwise": (f"x: {tokens}", "Sigmoid(x)"),
        "LayerNormalization": (f"x: {tokens}, g: f16[768], b: f16[768]", "LayerNormalization(x, g, b)"),
        "softmax of rows": ("x: f16[n,12,128,128]", "Softmax(x)"),
        "softmax of columns": (f"x: {images}", "Softmax(x) {axis=1}"),
        "BatchNormalization": (f"x: {images}, {channels}", "BatchNormalization(x, c0, c1, c2, c3)"),
        "InstanceNormalization": (f"x: {images}, {channels}", "InstanceNormalization(x, c0, c1)"),
        "products of a row": ("x: f16[n,768], w: f16[768,768]", "MatMul(x, w)"),
    }
    return {name: freeze(typed_graph(_chain(inputs, node))) for name, (inputs, node) in families.items()}


def _chain(inputs: str, node: str) -> str:
    values = ["x", *(f"v{i}" for i in range(_CHAIN))]
    head, _, rest = node.partition("(x")
    lines = "".join(f"  {y} = {head}({x}{rest}\n" for x, y in pairwise(values))
    return f"graph main({inputs}) {{\n{lines}  return {values[-1]}\n}}"


def measure(
    name: str, plan: "Path | Plan", batches: list[int], streams: list[int], rounds: int, cache: Path
) -> Iterator[dict[str, Any]]:
    """A row for each batch and number of streams."""
    with ExitStack() as stack:
        engines = [stack.enter_context(miniinfer_cli.load(plan, "cuda:0", pdl=pdl, cache=cache)) for pdl in (False, True)]
        for batch in batches:
            for count in streams:
                with ExitStack() as closing:
                    runs = [_Run(engine, batch, count, closing) for engine in engines]
                    program = engines[1].program(runs[1].inputs)
                    assert isinstance(program, LoadedProgram)
                    edges = early_launches(program.made)
                    each = max(4, int(_ROUND_S / max(min(run.time_s(8) for run in runs), 1e-5)))
                    times = [[run.time_s(each) for run in (runs if turn % 2 else runs[::-1])] for turn in range(rounds)]
                    pairs = [pair if turn % 2 else pair[::-1] for turn, pair in enumerate(times)]
                ratios = [on / off for off, on in pairs]
                low, middle, high = statistics.quantiles(ratios, n=4)
                off, on = (statistics.median(t) * 1e3 for t in zip(*pairs, strict=True))
                yield {
                    "model": name, "batch": batch, "streams": count, "edges": edges,
                    "off_ms": off, "on_ms": on, "ratio": middle, "quartiles": [low, high],
                }  # fmt: skip


class _Run:
    """One engine's contexts, warm."""

    def __init__(self, engine: Engine, batch: int, streams: int, closing: ExitStack) -> None:
        random = np.random.default_rng(0)
        feeds = {b.name: _input(b, batch, random) for b in engine.inputs}
        self.inputs = list(engine.check(feeds))
        self._contexts = [closing.enter_context(engine.create_context()) for _ in range(streams)]
        for context in self._contexts:
            for _ in range(5):
                context.start(self.inputs, transfers=False).result()

    def time_s(self, count: int) -> float:
        """Seconds for an inference, of so many on each stream."""
        started = time.perf_counter()
        for _ in range(count):
            pending = [context.start(self.inputs, transfers=False) for context in self._contexts]
        for one in pending:
            one.wait()
        return (time.perf_counter() - started) / (count * len(self._contexts))


def early_launches(program: CudaProgram) -> int:
    """How many kernels of an inference may begin early."""
    segments = ([s for s in run if isinstance(s, DeviceStep)] for run in program.segments())
    launches = (a for steps in segments for step in begin_early(steps) for a in flat(step.actions))
    return sum(isinstance(a, Launch) and a.attributes.programmatic for a in launches)


def _input(binding: Binding, batch: int, random: np.random.Generator) -> Any:
    shape = sizes_of(binding, batch)
    if np.issubdtype(binding.dtype, np.integer):
        return random.integers(0, 2 if "mask" in binding.name or "type" in binding.name else 1000, shape).astype(binding.dtype)
    return random.standard_normal(shape).astype(binding.dtype)


def line_of(row: dict[str, Any]) -> str:
    """A row of the table."""
    low, high = row["quartiles"]
    return (
        f"| {row['model']} | {row['batch']} | {row['streams']} | {row['edges']} | {row['off_ms']:.4f} | {row['on_ms']:.4f} |"
        f" {row['ratio']:.3f} ({low:.3f} to {high:.3f}) |"
    )


if __name__ == "__main__":
    main()
