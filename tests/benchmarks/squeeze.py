"""Squeeze-and-excitation of whole images: each way of cutting them, by the sizes of EfficientNet-B0; networks joined and apart.

    python -m tests.benchmarks.squeeze [--batch 1 64] [--dtype f16] [--rounds 5]
    python -m tests.benchmarks.squeeze --whole [--model efficientnet_b0 mobilenet_v3_large] [--batch 1 8 64] [--rounds 40]

Results are compared with f64 first. Microseconds of a copy in a graph of several, by events; of whole networks those of a replay,
in turns: with means, gates and products apart, and joined.
"""

import argparse
import math
import statistics
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

import miniinfer_cli
from miniinfer_cli.backends.cuda.tuning.candidates import Effort
from miniinfer_cli.ir import Graph, TensorType, dtype_of
from miniinfer_cli.ops import OURS, annotate
from miniinfer_cli.ops.registry import lookup
from tests.benchmarks.convolutions import DTYPES, TOLERANCE, placed, time_us
from tests.benchmarks.joins import Replays, interleaved, network

SIZES = ((112, 32, 8), (56, 96, 4), (56, 144, 6), (28, 144, 6), (28, 240, 10), (14, 480, 20), (14, 672, 28), (7, 1152, 48))
"""Pixels along an axis, channels, squeezed values."""
_NBYTES_PER_US = 4.3e6
JOIN = "squeeze_excitation"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 64])
    parser.add_argument("--dtype", default="f16", choices=list(DTYPES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--whole", action="store_true", help="whole networks instead")
    parser.add_argument("--model", nargs="+", default=["efficientnet_b0"])
    options = parser.parse_args()
    if options.whole:
        for name in options.model:
            measure_whole(name, options)
        return 0
    wrong = False
    for batch in options.batch:
        for size, channels, squeezed in SIZES:
            wrong |= measure(batch, size, channels, squeezed, options)
    return int(wrong)


def measure(batch: int, size: int, channels: int, squeezed: int, options: argparse.Namespace) -> bool:
    """Prints a line for each size; gives whether something was wrong."""
    random, kind = np.random.default_rng(1), DTYPES[options.dtype]
    shapes = ((squeezed, 1, 1, channels), (channels, 1, 1, squeezed), (squeezed,), (channels,))
    scales = (3 * channels**-0.5, 3 * squeezed**-0.5, 1, 1)
    constants = [(random.standard_normal(s) * by).astype(kind) for s, by in zip(shapes, scales, strict=True)]
    graph = Graph("squeeze")
    shape = (batch, size, size, channels)
    x = graph.add_input("x", TensorType(dtype_of(constants[0]), shape))
    graph.set_outputs([graph.add("SqueezeExcitation", x, *map(graph.add_constant, constants), domain=OURS, activation="Swish")])
    annotate(graph)
    nbytes = math.prod(shape) * np.dtype(kind).itemsize
    with ExitStack() as stack:
        rig, programs, favourite = placed(stack, graph, Effort(1000, 0, 3.0, races=0, raced_each=0), list)
        stream = rig.lanes[0].stream
        given, got = (np.empty(shape, kind) for _ in range(2))
        (at,) = programs[0][1].made.io.inputs.values()
        stream.copy_to_host(given.ctypes.data, rig.inputs(0) + at, nbytes)
        stream.synchronize()
        wide = [a.astype(np.float64) for a in (given, *constants)]
        (want,) = lookup(OURS, "SqueezeExcitation").evaluate(wide, {"activation": "Swish"}, n_outputs=1)
        told, wrong = [], False
        for candidate, program in programs:
            (at,) = program.made.io.outputs.values()
            rig.run(program, 0)
            stream.fill(rig.results(0) + at, 0xFF, nbytes)
            once_us = rig.run(program, 0)
            stream.copy_to_host(got.ctypes.data, rig.results(0) + at, nbytes)
            stream.synchronize()
            error = np.linalg.norm(got.astype(np.float64) - want) / np.linalg.norm(want)
            if error < TOLERANCE[options.dtype]:
                told.append(f"{candidate.key} {time_us(rig, program, once_us, options.rounds):.1f}")
            else:
                told.append(f"{candidate.key} WRONG {error:.1e}")
                wrong = True
    floor_us = 2 * nbytes / _NBYTES_PER_US
    print(
        f"{batch}x{size}x{size}x{channels} {squeezed}: floor {floor_us:.1f}; {'; '.join(told)}; takes {favourite.key}", flush=True
    )
    return wrong


def measure_whole(name: str, options: argparse.Namespace) -> None:
    """Prints a line for each batch."""
    plan = miniinfer_cli.build(network(name))
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        ways: list[dict[str, Any]] = [{"disable_tactics": [JOIN]}, {}]
        engines = [stack.enter_context(miniinfer_cli.load(plan, "cuda:0", cache=Path(folder), **way)) for way in ways]
        for batch in options.batch:
            with ExitStack() as closing:
                runs = [Replays(engine, batch, closing) for engine in engines]
                before, after = (statistics.median(us) for us in interleaved(runs, options.rounds))
                apart, joined = (np.asarray(run.results[0], np.float64) for run in runs)
                counts = [len(run.program.made.steps) for run in runs]
            error = np.linalg.norm(joined - apart) / np.linalg.norm(apart)
            told = f"apart {before:.1f} us ({counts[0]} steps), joined {after:.1f} us ({counts[1]} steps)"
            print(f"{name} b{batch}: {told}, results {error:.1e} apart", flush=True)


if __name__ == "__main__":
    sys.exit(main())
