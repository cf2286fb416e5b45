"""What joins give: networks, chains of squeeze-and-excitation and of norms, apart and joined, in turns, in one process.

    python -m tests.benchmarks.joins [--model NAME ...] [--batch 1 8 64]
    python -m tests.benchmarks.joins --chains    # pairs of products one behind the other, by sizes and outputs of a block
    python -m tests.benchmarks.joins --norms     # residual sums with their norms one behind the other, by rows and widths

Device times by events, one replay at a time in turns, in microseconds; the ratio is joined by apart. Networks are generated, in
f16; of a chain the times are those of each pair.
"""

import argparse
import statistics
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import onnx

import miniinfer_cli
from engine_format import Plan
from miniinfer_cli.backends.cuda.choice.joining import joins_of
from miniinfer_cli.backends.cuda.contract.join import families, label_of
from miniinfer_cli.backends.cuda.contract.program import CudaProgram
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.cuda.loading.loaded_program import LoadedProgram
from miniinfer_cli.backends.cuda.tactics.convolution.excitation_launch import Excitation
from miniinfer_cli.ir import DType, Graph, TensorType, symbol
from miniinfer_cli.ops import OURS, insert
from miniinfer_cli.ops.inference import infer_graph
from miniinfer_cli.passes.fuse_conv import fuse_conv
from miniinfer_cli.planning.freeze import freeze
from miniinfer_cli.runtime.engine import Engine
from sample_models.catalogue import FAMILIES, generate
from sample_models.graph_writer import GraphWriter
from sample_models.layers import batch_norm, conv, gemm
from sample_models.request import Request
from tests.gpu.plans import sizes_of

NETWORKS = ("efficientnet_b0", "mobilenet_v3_large", "bert_base", "gpt2", "vit_b16")
_SEQUENCE = 128
NORMS = ((1, 768), (128, 768), (1024, 768), (8192, 768), (128, 2048), (2048, 2048), (8192, 2048), (128, 4096))
"""Rows and their elements."""
# Channels, squeezed: of EfficientNet-B0, then of MobileNetV3-large.
SIZES = ((32, 8), (96, 4), (240, 10), (480, 20), (672, 28), (1152, 48), (72, 24), (120, 32), (480, 120), (672, 168), (960, 240))
_CHAIN = 16
_WARM = 4
# Kernel, expanded, out, squeeze and excitation, hard swish, stride.
_MOBILENET_V3 = (
    (3, 16, 16, 0, 0, 1), (3, 64, 24, 0, 0, 2), (3, 72, 24, 0, 0, 1), (5, 72, 40, 1, 0, 2), (5, 120, 40, 1, 0, 1),
    (5, 120, 40, 1, 0, 1), (3, 240, 80, 0, 1, 2), (3, 200, 80, 0, 1, 1), (3, 184, 80, 0, 1, 1), (3, 184, 80, 0, 1, 1),
    (3, 480, 112, 1, 1, 1), (3, 672, 112, 1, 1, 1), (5, 672, 160, 1, 1, 2), (5, 960, 160, 1, 1, 1), (5, 960, 160, 1, 1, 1),
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="+", default=list(NETWORKS), choices=NETWORKS)
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 8, 64])
    parser.add_argument("--rounds", type=int, default=100, help="replays of each way")
    parser.add_argument("--chains", action="store_true", help="chains of pairs of products instead of networks")
    parser.add_argument("--norms", action="store_true", help="chains of residual sums and norms instead of networks")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder) / "cache"
        if options.norms:
            for line in measure_norms(options.rounds, cache):
                print(line, flush=True)
            return
        if options.chains:
            for line in measure_chains(options.batch, options.rounds, cache):
                print(line, flush=True)
            return
        for name in options.model:
            plan = miniinfer_cli.build(network(name))
            for line in measure_network(name, plan, options.batch, options.rounds, cache):
                print(line, flush=True)


def network(name: str) -> onnx.ModelProto:
    """The model in f16, with an open batch."""
    if name in FAMILIES:
        return generate(name, Request("batch", _SEQUENCE), dtype="f16", seed=1)
    graph = GraphWriter(name, opset=17, dtype=np.dtype(np.float16))
    _write_mobilenet_v3(graph)
    return graph.model()


def _write_mobilenet_v3(graph: GraphWriter) -> None:
    """MobileNetV3-large (Howard et al. 2019) as torchvision has it."""

    def unit(x: str, name: str, channels: int, out: int, kernel: int, then: str, *, stride: int = 1, group: int = 1) -> str:
        y = conv(graph, name, x, channels, out, kernel, stride=stride, group=group)
        y = batch_norm(graph, f"{name}.norm", y, out, variance=2.0)
        return graph.node(then, [y]) if then else y

    x = unit(graph.input("image", graph.dtype, ["batch", 3, 224, 224]), "stem", 3, 16, 3, "HardSwish", stride=2)
    channels = 16
    for number, (kernel, expanded, out, excited, swish, stride) in enumerate(_MOBILENET_V3):
        then = "HardSwish" if swish else "Relu"
        with graph.scope(f"block.{number}"):
            y = x if expanded == channels else unit(x, "expand", channels, expanded, 1, then)
            y = unit(y, "depthwise", expanded, expanded, kernel, then, stride=stride, group=expanded)
            if excited:
                squeezed = max(8, int(expanded // 4 + 4) // 8 * 8)
                gate = conv(graph, "fc1", graph.node("GlobalAveragePool", [y]), expanded, squeezed, 1, bias=True)
                gate = conv(graph, "fc2", graph.node("Relu", [gate]), squeezed, expanded, 1, bias=True)
                y = graph.node("Mul", [graph.node("HardSigmoid", [gate], alpha=1 / 6), y])
            y = unit(y, "project", expanded, out, 1, "")
            x = graph.node("Add", [y, x]) if stride == 1 and channels == out else y
        channels = out
    x = graph.node("Flatten", [graph.node("GlobalAveragePool", [unit(x, "last", channels, 960, 1, "HardSwish")])], axis=1)
    x = graph.node("HardSwish", [gemm(graph, "classifier.0", x, 960, 1280)])
    graph.output("logits", gemm(graph, "classifier.3", x, 1280, 1000), graph.dtype, ["batch", 1000])


def measure_network(name: str, plan: Plan, batches: Sequence[int], rounds: int, cache: Path) -> Iterator[str]:
    """A line for each batch: nothing joined, as the heuristic has it, and everything."""
    with ExitStack() as stack:

        def engine(**options: Any) -> Any:
            return stack.enter_context(miniinfer_cli.load(plan, "cuda:0", cache=cache, **options))

        apart = engine(disable_tactics=[*families()])
        for batch in batches:
            forced = {label: join.key for join in _joins(apart, batch) for label in [join.nodes[0].name]}
            engines = [apart, engine(), engine(tactics=forced)]
            with ExitStack() as closing:
                runs = [Replays(e, batch, closing) for e in engines]
                counts = [_joined(r.program.made) for r in runs]
                times = interleaved(runs, rounds)
            medians = [statistics.median(t) for t in times]
            ratios = [_ratio(times[0], t) for t in times[1:]]
            yield (
                f"| {name} | {batch} | {counts[0]} | {medians[0]:.1f} | {counts[1]} | {medians[1]:.1f} | {ratios[0]}"
                f" | {counts[2]} | {medians[2]:.1f} | {ratios[1]} |"
            )


def _joins(engine: Engine, batch: int) -> Sequence[Any]:
    arrays = engine.check({b.name: np.zeros(sizes_of(b, batch), b.dtype) for b in engine.inputs})
    graph, types = engine.graph_for(arrays)
    return joins_of(graph, infer_graph(graph, types), Target())


def _joined(program: CudaProgram) -> int:
    return sum(s.choice is not None and s.choice.join is not None for s in program.steps)


def measure_chains(batches: Sequence[int], rounds: int, cache: Path) -> Iterator[str]:
    """A line for each batch and sizes: what a pair takes apart, and joined in slices of several sizes."""
    for channels, squeezed in SIZES:
        graph = chain(channels, squeezed)
        pairs = [[n.name for n in graph.nodes[i : i + 2]] for i in range(0, len(graph.nodes), 2)]
        labels = [label_of(graph.nodes[i : i + 2]) for i in range(0, len(graph.nodes), 2)]
        plan = freeze(graph)
        sizes = Excitation(DType.F16, 1, channels, squeezed, channels)
        shares = sorted(sizes.shares(Target()))
        ways: list[Mapping[str, Any]] = [{"disable_tactics": [*families()]}]
        for share in shares:
            joined = {first: "excitation" for first, _ in pairs}
            ways.append({"tactics": joined | dict.fromkeys(labels, f"slices of {share}")})
        for batch in batches:
            with ExitStack() as closing:
                engines = [closing.enter_context(miniinfer_cli.load(plan, "cuda:0", cache=cache, **way)) for way in ways]
                times = interleaved([Replays(e, batch, closing) for e in engines], rounds)
            apart, *others = (statistics.median(t) / _CHAIN for t in times)
            told = "".join(f" {share}: {us:.2f}" for share, us in zip(shares, others, strict=True))
            yield f"{channels:5} {squeezed:4} b{batch:<3} apart {apart:.2f} |{told}"


def measure_norms(rounds: int, cache: Path) -> Iterator[str]:
    """A line for each size: microseconds of a sum and its norm, apart and joined, for both norms."""
    for rows, length in NORMS:
        found = []
        for op in ("LayerNormalization", "RMSNormalization"):
            plan = freeze(norms(rows, length, op))
            ways: list[dict[str, Any]] = [{"disable_tactics": [*families()]}, {}]
            with ExitStack() as closing:
                engines = [closing.enter_context(miniinfer_cli.load(plan, "cuda:0", cache=cache, **way)) for way in ways]
                runs = [Replays(e, rows, closing) for e in engines]
                assert _joined(runs[1].program.made) >= _CHAIN - 1
                apart, joined = (statistics.median(t) / _CHAIN for t in interleaved(runs, rounds))
            found.append(f"{apart:.2f} → {joined:.2f}")
        yield f"| {rows} | {length} | " + " | ".join(found) + " |"


def norms(rows: int, length: int, op: str) -> Graph:
    """Sums of what was normalized and of a stream that goes on, one behind the other, in f16."""
    random, graph = np.random.default_rng(length), Graph("norms")
    stream = value = graph.add_input("x", TensorType(DType.F16, (rows, length)))
    affine = [graph.add_constant(random.uniform(0.8, 1.2, length).astype(np.float16), name) for name in ("scale", "shift")]
    for _ in range(_CHAIN):
        stream = insert(graph, "Add", stream, value)
        value = insert(graph, op, stream, *affine[: 2 if op == "LayerNormalization" else 1])
    graph.set_outputs([value], ["y"])
    return graph


def chain(channels: int, squeezed: int) -> Graph:
    """Pairs of products with what follows each, one behind the other, in f16."""
    random, graph = np.random.default_rng(channels), Graph("chain")
    value = graph.add_input("x", TensorType(DType.F16, (symbol("batch"), 1, 1, channels)))
    for _ in range(_CHAIN):
        for out, come, then in ((squeezed, channels, "Swish"), (channels, squeezed, "Sigmoid")):
            weights = random.normal(0, come**-0.5, (out, 1, 1, come)).astype(np.float16)
            operands = (graph.add_constant(a) for a in (weights, random.normal(0, 1, out).astype(np.float16)))
            value = insert(graph, then, insert(graph, "ConvNHWC", value, *operands, domain=OURS))
    graph.set_outputs([value], ["y"])
    fuse_conv(graph)
    return graph


class Replays:
    """One engine's context, warm."""

    def __init__(self, engine: Engine, batch: int, closing: ExitStack) -> None:
        random = np.random.default_rng(0)
        shapes = {b.name: sizes_of(b, batch) for b in engine.inputs}
        self._arrays = engine.check({b.name: _contents(random, shapes[b.name], b.dtype) for b in engine.inputs})
        program = engine.program(self._arrays)
        assert isinstance(program, LoadedProgram)
        self.program = program
        context = closing.enter_context(engine.create_context())
        self.results = context.run_arrays(self._arrays)
        for _ in range(3):
            context.start(self._arrays, transfers=False).result()
        self._context = context._device

    def time_us(self) -> float:
        """Microseconds of one replay on the device."""
        pending = self._context.replay(self.program, self._arrays, timed=True)
        pending.wait()
        assert pending.times_ms is not None
        return pending.times_ms[1] * 1e3


def _contents(random: np.random.Generator, shape: Sequence[int], dtype: Any) -> np.ndarray:
    """Normal floats; integers are 0 or 1, as masks and types of tokens are: of a 3 in a mask become infinities, and NaN."""
    whole = np.issubdtype(dtype, np.integer)
    return (random.integers(0, 2, shape) if whole else random.standard_normal(shape)).astype(dtype)


def interleaved(runs: Sequence[Replays], rounds: int) -> list[list[float]]:
    """Microseconds of each, by rounds; in turns from the first and from the last."""
    times: list[list[float]] = [[] for _ in runs]
    for turn in range(rounds + _WARM):
        for number in range(len(runs)) if turn % 2 else reversed(range(len(runs))):
            time_us = runs[number].time_us()
            if turn >= _WARM:
                times[number].append(time_us)
    return times


def _ratio(before: Sequence[float], after: Sequence[float]) -> str:
    low, middle, high = statistics.quantiles([a / b for b, a in zip(before, after, strict=True)], n=4)
    return f"{middle:.3f} ({low:.3f} to {high:.3f})"


if __name__ == "__main__":
    main()
