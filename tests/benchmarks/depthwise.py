"""Depthwise convolutions of known networks by each share that a thread may have, in graphs of copies.

    python -m tests.benchmarks.depthwise [--network mobilenet efficientnet] [--batch 1 64] [--shares 2x4 1x1] [--packs 32]
        [--block 128] [--rounds N]

f16, channels last, constant weights and a bias. Microseconds of a copy with plain edges, beside what the bytes take at 4.3 TB/s,
and the sums of the fastest and of the heuristic's favourites. All shares must give the same bits. ``--shares``, ``--packs`` and
``--block`` stand for the table's fields ``outputs_of_thread``, ``packs_beside`` and ``depthwise_block``.
"""

import argparse
import math
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
from miniinfer_cli.backends.cuda.tactics.convolution.convolution_heuristic import CONVOLUTIONS
from miniinfer_cli.backends.cuda.tuning.rig import Rig
from miniinfer_cli.backends.interface import DeviceOptions
from miniinfer_cli.devices.opening import load
from miniinfer_cli.ir import Graph
from miniinfer_cli.ops import annotate
from miniinfer_cli.ops.registry import OURS
from miniinfer_cli.planning.freeze import freeze
from miniinfer_cli.runtime.cache_folder import cache_options
from tests.backends.nodes import make_graph

# Channels, size of the image, kernel, stride, and how many layers there are.
NETWORKS = {
    "mobilenet": [
        *((32, 112, 3, 1, 1), (96, 112, 3, 2, 1), (144, 56, 3, 1, 1), (144, 56, 3, 2, 1), (192, 28, 3, 1, 2)),
        *((192, 28, 3, 2, 1), (384, 14, 3, 1, 4), (576, 14, 3, 1, 2), (576, 14, 3, 2, 1), (960, 7, 3, 1, 3)),
    ],
    "efficientnet": [
        *((32, 112, 3, 1, 1), (96, 112, 3, 2, 1), (144, 56, 3, 1, 1), (144, 56, 5, 2, 1), (240, 28, 5, 1, 1)),
        *((240, 28, 3, 2, 1), (480, 14, 3, 1, 2), (480, 14, 5, 1, 1), (672, 14, 5, 1, 2), (672, 14, 5, 2, 1)),
        *((1152, 7, 5, 1, 3), (1152, 7, 3, 1, 1)),
    ],
    "convnext": [(96, 56, 7, 1, 3), (192, 28, 7, 1, 3), (384, 14, 7, 1, 9), (768, 7, 7, 1, 3)],
}
_BYTES_PER_US = 4.3e6


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", nargs="+", default=list(NETWORKS), choices=list(NETWORKS))
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 64])
    parser.add_argument("--shares", nargs="+", default=[f"{r}x{c}" for r, c in CONVOLUTIONS.outputs_of_thread])
    parser.add_argument("--packs", type=int, default=CONVOLUTIONS.packs_beside)
    parser.add_argument("--block", type=int, default=CONVOLUTIONS.depthwise_block)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    shares = tuple((int(rows), int(columns)) for rows, _, columns in (share.partition("x") for share in options.shares))
    fields = {"outputs_of_thread": shares, "packs_beside": options.packs, "depthwise_block": options.block}
    for field, value in fields.items():  # nodes are offered what the family's table says
        object.__setattr__(CONVOLUTIONS, field, value)
    right = True
    for network in options.network:
        for batch in options.batch:
            sums = np.zeros(3)
            for *shape, layers in NETWORKS[network]:
                floor, times, same = measure(batch, *shape, rounds=options.rounds)
                right &= same
                sums += layers * np.array([floor, min(times.values()), next(iter(times.values()))])
                words = ", ".join(f"{key.removeprefix('depthwise ')} {us:.2f}" for key, us in times.items())
                print(f"{network} b{batch} {shape}: floor {floor:.2f}; {words}{'' if same else ' NOT THE SAME BITS'}", flush=True)
            print(f"{network} b{batch}: floor {sums[0]:.1f}, fastest {sums[1]:.1f}, favourites {sums[2]:.1f} us", flush=True)
    return int(not right)


def measure(
    batch: int, channels: int, size: int, kernel: int, stride: int, *, rounds: int
) -> tuple[float, dict[str, float], bool]:
    """The floor, µs of each share by its key, the favourite first, and whether all give the same bits."""
    random = np.random.default_rng(5)
    x = np.broadcast_to(np.float16(0), (batch, size, size, channels))
    w, b = (random.standard_normal(shape).astype(np.float16) for shape in ((channels, kernel, kernel, 1), (channels,)))
    pads = [kernel // 2] * 4
    attrs = {"group": channels, "strides": [stride] * 2, "pads": pads}
    graph = make_graph("ConvNHWC", (x, w, b), domain=OURS, n_outputs=1, constants=(1, 2), body=None, attrs=attrs)
    annotate(graph)
    out = batch * math.ceil(size / stride) ** 2 * channels
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
        times, results = {}, []
        for key, program in programs.items():
            poison(rig, program, out)
            once_us = min(rig.run(program, number) for number in range(2))
            results.append(result_of(rig, program, out))
            captures = rig.capture(program, rig.copies_for(min(once_us, 100.0)))
            assert captures is not None
            found = [rig.replay(captures) for _ in range(rounds + 1)]
            captures.close()
            times[key] = statistics.median(found[1:])
    return 2 * (x.size + w.size + out) / _BYTES_PER_US, times, all((r == results[0]).all() for r in results)


def keys_of(graph: Graph, target: Target) -> list[str]:
    """The shares that the convolution is offered, the favourite first."""
    found: list[str] = []

    def watch(site: Site, offered: Sequence[Tactic], decision: Any) -> None:
        found.extend(t.key for t in offered if t.key.startswith("depthwise"))

    make_program(graph, [v.type for v in graph.inputs], replace(target, watch=watch))
    return list(dict.fromkeys(found))


def poison(rig: Rig, program: LoadedProgram, count: int) -> None:
    """Lets the results be NaN until they are written."""
    (offset,) = program.made.io.outputs.values()
    rig.lanes[0].stream.fill(rig.results(1) + offset, 0xFF, 2 * count)


def result_of(rig: Rig, program: LoadedProgram, count: int) -> Any:
    """The bits of the last run's result."""
    (offset,) = program.made.io.outputs.values()
    found, stream = np.empty(count, np.uint16), rig.lanes[0].stream
    stream.copy_to_host(found.ctypes.data, rig.results(1) + offset, found.nbytes)
    stream.synchronize()
    return found


if __name__ == "__main__":
    sys.exit(main())
