"""Products and convolutions of bytes by the kernels for sm_90 beside those of halves, and whole networks of 8 bits beside f16.

    python -m tests.benchmarks.low_bits [--types int8 fp8] [--only TEXT ...] [--forms 3] [--rounds 5] [--out FILE]
    python -m tests.benchmarks.low_bits --whole [resnet50 bert_base] [--types int8 fp8] [--rest f32] [--batch 1 64] [--rounds 30]

Results are compared with f64 at some rows first: whole numbers are one step off at most, floats of 8 bits by 2 % (of the norm). A
line for each shape and type: what bytes and operations take at least, what the heuristic takes, all forms, and f16's favourite.

``--whole``: generated networks, calibrated on random samples, in turns with f16; device times of a replay in microseconds, and
how far results are from those of f16 (weights are random, so that is a sign of life, no accuracy).
"""

import argparse
import json
import math
import statistics
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import miniinfer_cli
from miniinfer_cli.backends.cuda.tactics.products.few_tokens import WAY
from miniinfer_cli.backends.cuda.tactics.products.large_products import LARGE
from miniinfer_cli.backends.cuda.tuning.candidates import Candidate, Effort
from miniinfer_cli.ir import DType, Graph, TensorType, Value, numpy_dtype
from miniinfer_cli.ops import annotate, insert
from miniinfer_cli.ops.activation import gelu
from miniinfer_cli.ops.registry import OURS
from miniinfer_cli.passes.precision.fuse_quantized import fuse_quantized
from sample_models.catalogue import generate
from sample_models.request import Request
from tests.benchmarks.convolutions import Looks, Shape, exact, placed, region, time_us
from tests.benchmarks.joins import Replays, interleaved

TYPES = {"int8": (DType.U8, DType.I8), "fp8": (DType.F8E4M3FN, DType.F8E4M3FN)}
"""Of what is multiplied and of weights."""
CASES = [
    (64, Shape(64, 3, 7, 2, 224, "relu", 1)),
    (1, Shape(64, 64, 3, 1, 56, "relu", 3)),
    (1, Shape(256, 64, 1, 1, 56, "add relu", 3)),
    (1, Shape(128, 128, 3, 1, 28, "relu", 3)),
    (1, Shape(256, 256, 3, 1, 14, "relu", 5)),
    (1, Shape(512, 512, 3, 1, 7, "relu", 2)),
    (64, Shape(64, 64, 3, 1, 56, "relu", 3)),
    (64, Shape(64, 256, 1, 1, 56, "relu", 2)),
    (64, Shape(256, 64, 1, 1, 56, "add relu", 3)),
    (64, Shape(128, 128, 3, 1, 28, "relu", 3)),
    (64, Shape(512, 128, 1, 1, 28, "add relu", 4)),
    (64, Shape(256, 256, 3, 1, 14, "relu", 5)),
    (64, Shape(1024, 256, 1, 1, 14, "add relu", 6)),
    (64, Shape(256, 1024, 1, 1, 14, "relu", 5)),
    (64, Shape(512, 512, 3, 1, 7, "relu", 2)),
    (64, Shape(2048, 512, 1, 1, 7, "add relu", 3)),
    (8, Shape(2304, 768, 1, 1, 32, "none", 12)),
    (8, Shape(3072, 768, 1, 1, 32, "gelu", 12)),
    (8, Shape(768, 3072, 1, 1, 32, "add", 12)),
    (8, Shape(768, 768, 1, 1, 32, "add", 12)),
]
"""Batches and shapes: ResNet-50's, then the products of BERT-base with 8192 rows."""
_NBYTES_PER_US, _OPERATIONS_PER_US = 4.3e6, 1576e6
_X_SCALE, _Z_SCALE = 0.02, 0.05
_EFFORT = Effort(1000, 0, 3.0, races=0, raced_each=0)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--types", nargs="+", default=list(TYPES), choices=list(TYPES))
    parser.add_argument("--only", nargs="+", default=[""], help="shapes whose names contain one of these texts")
    parser.add_argument("--forms", type=int, default=3, help="of each kernel")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--whole", nargs="*", choices=["resnet50", "bert_base"], help="whole networks instead (default: both)")
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 64])
    parser.add_argument("--rest", choices=["f32", "f16"], default="f32", help="what does not multiply 8 bits in whole networks")
    parser.add_argument("--out", type=Path, help="where all rows go as JSON")
    options = parser.parse_args()
    if options.whole is not None:
        for network in options.whole or ["resnet50", "bert_base"]:
            for line in measure_whole(network, options):
                print(line, flush=True)
        return 0
    rows = []
    for batch, shape in CASES:
        if not any(text in shape.name(batch) for text in options.only):
            continue
        halves = None if shape.follows == "gelu" else measure_halves(shape, batch, options.rounds)
        for kind in options.types:
            row = {**measure(shape, batch, kind, options), "f16": halves}
            rows.append(row)
            print(line_of(row), flush=True)
    if options.out:
        options.out.write_text(json.dumps(rows, indent=1))
    return int(any(row["wrong"] for row in rows))


@dataclass(frozen=True, slots=True)
class Region:
    """A graph of one node, and its constants as numbers. ``y_scale`` None: floats leave."""

    graph: Graph
    w: np.ndarray
    b: np.ndarray
    y_scale: float
    kinds: tuple[DType, DType, DType]
    """Of x, of the residual, of the result."""


def quantized_region(shape: Shape, batch: int, kind: str) -> Region:
    """The convolution between what dequantizes its operands and what quantizes its result."""
    random = np.random.default_rng(5)
    of_x, of_w = TYPES[kind]
    of_z = DType.I8 if kind == "int8" else of_w
    of_y = of_x if "relu" in shape.follows else of_z
    sizes = (shape.features, shape.kernel, shape.kernel, shape.channels)
    scales = (random.uniform(0.5, 1.5, shape.features) / math.sqrt(shape.kernel**2 * shape.channels)).astype(np.float32)
    if kind == "int8":
        stored, scales = random.integers(-127, 128, sizes).astype(np.int8), (scales / 64).astype(np.float32)
    else:
        stored = random.standard_normal(sizes).astype(numpy_dtype(of_w))
    b = random.standard_normal(shape.features).astype(np.float32)
    y_scale = 0.03 if kind == "int8" else 0.01
    graph = Graph("region")
    x = graph.add_input("x", TensorType(of_x, (batch, shape.size, shape.size, shape.channels)))
    wide = _dequantized(graph, x, _X_SCALE if kind == "int8" else 1.0)
    weights = insert(graph, "DequantizeLinear", graph.add_constant(stored, "w"), graph.add_constant(scales, "s"), axis=0)
    attrs: dict[str, Any] = {"strides": [shape.stride] * 2, "pads": [shape.kernel // 2] * 4}
    y = insert(graph, "ConvNHWC", wide, weights, graph.add_constant(b, "b"), domain=OURS, **attrs)
    if "add" in shape.follows:
        z = graph.add_input("z", TensorType(of_z, (batch, shape.out, shape.out, shape.features)))
        y = insert(graph, "Add", y, _dequantized(graph, z, _Z_SCALE if kind == "int8" else 1.0))
    if "relu" in shape.follows:
        y = insert(graph, "Relu", y)
    if shape.follows == "gelu":
        y = insert(graph, "Gelu", y)
    y = insert(graph, "QuantizeLinear", y, graph.add_constant(np.float32(y_scale)), _zero(graph, of_y))
    graph.set_outputs([y])
    annotate(graph)
    assert fuse_quantized(graph) == 1
    annotate(graph)
    wide_w = stored.astype(np.float64) * scales.astype(np.float64)[:, None, None, None]
    return Region(graph, wide_w, b, y_scale, (of_x, of_z, of_y))


def _dequantized(graph: Graph, x: Value, scale: float) -> Value:
    return insert(graph, "DequantizeLinear", x, graph.add_constant(np.float32(scale)), _zero(graph, x.tensor.dtype))


def _zero(graph: Graph, dtype: DType) -> Value:
    return graph.add_constant(np.zeros((), numpy_dtype(dtype)))


def measure(shape: Shape, batch: int, kind: str, options: argparse.Namespace) -> dict[str, Any]:
    """What each way takes, by its key; those whose results are wrong are named, and not timed."""
    made = quantized_region(shape, batch, kind)
    times: dict[str, float] = {}
    wrong: dict[str, float] = {}
    with ExitStack() as stack:
        rig, programs, favourite = placed(stack, made.graph, _EFFORT, lambda c: _wanted(c, options.forms))
        of_x, of_z, of_y = map(numpy_dtype, made.kinds)
        looks = Looks(shape, batch, rig, programs[0][1], (of_x, of_z, of_y))
        right = _exact(shape, kind, made, looks)
        for candidate, program in programs:
            found, once_us = looks.found(program, 0x55)
            error = _error(kind, found, right)
            if error < 1:
                times[candidate.key] = time_us(rig, program, once_us, options.rounds)
            else:
                wrong[candidate.key] = error
    y = batch * shape.out**2 * shape.features
    weights = shape.kernel**2 * shape.channels * shape.features
    moved = batch * shape.size**2 * shape.channels + weights + y * (2 if "add" in shape.follows else 1)
    floor = max(moved / _NBYTES_PER_US, 2 * batch * shape.out**2 * weights / _OPERATIONS_PER_US)
    named = {"shape": shape.name(batch), "type": kind, "layers": shape.layers, "floor": floor}
    return {**named, "favourite": favourite.key, "times": times, "wrong": wrong}


def measure_halves(shape: Shape, batch: int, rounds: int) -> float:
    """What the heuristic's way takes in f16."""
    with ExitStack() as stack:
        rig, ((_, program),), _ = placed(stack, region(shape, batch, "f16")[0], _EFFORT, lambda c: c[:1])
        return time_us(rig, program, rig.run(program, 0), rounds)


def _wanted(candidates: list[Candidate], forms: int) -> list[Candidate]:
    """The heuristic's choice, and the first forms of each kernel; also what there was before these."""
    kept = candidates[:1]
    for word in (WAY, LARGE, "integers"):
        kept += [c for c in candidates[1:] if c.key.startswith(word)][:forms]
    return kept


def _exact(shape: Shape, kind: str, made: Region, looks: Looks) -> np.ndarray:
    """The results at some pixels, rounded as the region's are."""
    x, *z = (given.astype(np.float32) for given in looks.given)
    of_x, of_z = (_X_SCALE, _Z_SCALE) if kind == "int8" else (1.0, 1.0)
    added = z[0] * np.float32(of_z) if z else None
    found = exact(shape, looks.pixels, x * np.float32(of_x), made.w, made.b, added)
    found = (np.asarray(gelu(found)) if shape.follows == "gelu" else found) / made.y_scale
    of_y = made.kinds[2]
    low, high = (-448, 448) if kind == "fp8" else (0, 255) if of_y is DType.U8 else (-128, 127)
    found = np.clip(found if kind == "fp8" else np.rint(found), low, high)
    return found.astype(numpy_dtype(of_y)).astype(np.float64)


def _error(kind: str, found: np.ndarray | None, right: np.ndarray) -> float:
    """1 and more where the results are wrong."""
    if found is None:
        return math.inf
    apart = found - right
    if kind == "fp8":
        return float(np.linalg.norm(apart) / np.linalg.norm(right)) / 0.02
    return float(max(np.abs(apart).max() / 1.5, np.abs(apart).mean() / 0.01))


def line_of(row: dict[str, Any]) -> str:
    """The floor, f16, and our forms, the fastest first."""
    ours = sorted((us, key) for key, us in row["times"].items())
    halves = "" if row["f16"] is None else f"f16 {row['f16']:.1f}; "
    told = "; ".join(f"{key.replace(' ahead', '').replace(' together', '')} {us:.1f}" for us, key in ours[:5])
    wrong = f"; WRONG {row['wrong']}" if row["wrong"] else ""
    named = f"{row['shape']} {row['type']} x{row['layers']}: floor {row['floor']:.1f}; {halves}"
    return f"{named}{told}; takes {row['favourite']}{wrong}"


def measure_whole(network: str, options: argparse.Namespace) -> Iterator[str]:
    """A line for each type and batch, beside f16."""
    model = generate(network, Request("batch", 128), seed=1)
    random = np.random.default_rng(0)
    if network == "bert_base":
        ids = random.integers(0, 30000, (4, 128))
        sample = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    else:
        sample = {"image": random.standard_normal((4, 3, 224, 224)).astype(np.float32)}
    with ExitStack() as stack:
        cache = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        loaded = partial(miniinfer_cli.load, device="cuda:0", cache=cache)
        engines = {"f16": stack.enter_context(loaded(miniinfer_cli.build(model, precision="f16")))}
        for kind in options.types:
            types: dict[str, Any] = {kind: True} if options.rest == "f32" else {kind: True, "precision": options.rest}
            plan = miniinfer_cli.build(model, **types, calibrate=[sample], calibration_method="minmax")
            engines[kind] = stack.enter_context(loaded(plan))
        for batch in options.batch:
            with ExitStack() as closing:
                runs = [Replays(engine, batch, closing) for engine in engines.values()]
                times = interleaved(runs, max(options.rounds, 30))
                first, *others = ([np.asarray(r, np.float64) for r in run.results] for run in runs)
                medians = [statistics.median(listed) for listed in times]
                steps = [len(run.program.made.steps) for run in runs]
            told = [f"f16 {medians[0]:.1f} us ({steps[0]} steps)"]
            for kind, us, count, found in zip(options.types, medians[1:], steps[1:], others, strict=True):
                apart = max(np.linalg.norm(a - b) / np.linalg.norm(b) for a, b in zip(found, first, strict=True))
                told.append(f"{kind} {us:.1f} us ({count} steps, {apart:.1e} from f16)")
            yield f"{network} b{batch}: {', '.join(told)}"


if __name__ == "__main__":
    sys.exit(main())
