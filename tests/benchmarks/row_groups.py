"""Rows that are normalized, by each number of threads that may share one, in graphs of copies.

    python -m tests.benchmarks.row_groups [--length 96 192 384 768] [--rows 3136 200704] [--rounds N]

LayerNormalization of f16 with constant scale and bias. Microseconds of a copy with plain edges, beside what the bytes take at 4.3
TB/s. Results of all ways are within two roundings of the first one's.
"""

import argparse
import statistics
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import numpy as np

from miniinfer_cli.backends.choosing import Policy
from miniinfer_cli.backends.cuda.contract.site import Site
from miniinfer_cli.backends.cuda.contract.tactic import Tactic
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.cuda.loading.loaded_program import LoadedProgram
from miniinfer_cli.backends.cuda.making.maker import make_program
from miniinfer_cli.backends.cuda.models.model import CudaModel
from miniinfer_cli.backends.cuda.tuning.rig import Rig
from miniinfer_cli.backends.interface import DeviceOptions
from miniinfer_cli.devices.opening import load
from miniinfer_cli.ir import Graph
from miniinfer_cli.ops import annotate
from miniinfer_cli.planning.freeze import freeze
from miniinfer_cli.runtime.cache_folder import cache_options
from tests.backends.nodes import make_graph
from tests.benchmarks.depthwise import poison, result_of

_BYTES_PER_US = 4.3e6


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--length", nargs="+", type=int, default=[96, 192, 384, 768])
    parser.add_argument("--rows", nargs="+", type=int, default=[3136, 200704])
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    right = True
    for length in options.length:
        for rows in options.rows:
            rows = rows * 96**2 // length**2  # an image with twice the channels has a quarter of the pixels
            times, same = measure(rows, length, rounds=options.rounds)
            right &= same
            words = ", ".join(f"{key.removeprefix('rows by ')} {us:.2f}" for key, us in times.items())
            floor = 4 * rows * length / _BYTES_PER_US
            print(f"{rows}x{length}: floor {floor:.2f}; {words}{'' if same else ' NOT THE SAME'}", flush=True)
    return int(not right)


def measure(rows: int, length: int, *, rounds: int) -> tuple[dict[str, float], bool]:
    """µs of each way by its key, the favourite first, and whether all give the same numbers."""
    random = np.random.default_rng(5)
    x = np.broadcast_to(np.float16(0), (rows, length))
    g, b = (random.standard_normal(length).astype(np.float16) for _ in range(2))
    graph = make_graph("LayerNormalization", (x, g, b), domain="", n_outputs=1, constants=(1, 2), body=None, attrs={})
    annotate(graph)
    count = rows * length
    with ExitStack() as stack:
        model = stack.enter_context(load(freeze(graph), "cuda:0", DeviceOptions(**cache_options()))).model
        assert isinstance(model, CudaModel)
        types = [v.type for v in graph.inputs]
        made = {
            key: make_program(graph, types, replace(model.target, policy=Policy(forced={"y0": key})), model.weights.holds)
            for key in keys_of(graph, model.target)
        }
        model.functions.prepare([kernel for one in made.values() for kernel in one.kernels])
        programs = {key: LoadedProgram(one, model) for key, one in made.items()}
        for program in programs.values():
            stack.callback(program.close)
        rig = stack.enter_context(Rig(model, list(programs.values()), seed=3))
        times: dict[str, float] = {}
        results: list[Any] = []
        for key, program in programs.items():
            poison(rig, program, count)
            once_us = min(rig.run(program, number) for number in range(2))
            results.append(result_of(rig, program, count).view(np.float16).astype(np.float32))
            captures = rig.capture(program, rig.copies_for(min(once_us, 100.0)))
            assert captures is not None
            found = [rig.replay(captures) for _ in range(rounds + 1)]
            captures.close()
            times[key] = statistics.median(found[1:])
    return times, all(np.allclose(r, results[0], rtol=2e-3, atol=2e-3) for r in results)


def keys_of(graph: Graph, target: Target) -> list[str]:
    """The ways that rows in registers are offered, the favourite first."""
    found: list[str] = []

    def watch(site: Site, offered: Sequence[Tactic], decision: Any) -> None:
        found.extend(t.key for t in offered if t.key.startswith("rows by"))

    make_program(graph, [v.type for v in graph.inputs], replace(target, watch=watch))
    return list(dict.fromkeys(found))


if __name__ == "__main__":
    sys.exit(main())
