"""Convolutions of known networks: the kernels for sm_90 beside the libraries, in graphs of copies with rotated weights.

    python -m tests.benchmarks.convolutions [--network resnet50 mobilenet efficientnet regnet] [--batch 64] [--dtype f16]
        [--forms 8] [--variants 4] [--only TEXT ...] [--rounds 5] [--out FILE]
    python -m tests.benchmarks.convolutions --whole [--network ...] [--batch 8 64] [--dtype f16] [--rounds 40] [--disable stem]

Channels last, constant weights, a bias, and what follows in the network. Results are compared with f64 at some pixels first.
A line for each shape: what its bytes and operations take at least; the libraries (as they are, the best of so many other ways,
and what is left of the region by a pass), each form of ours, and which one the heuristic takes. In the end what the
convolutions of the network take in all, each as often as it is there.

``--whole``: generated networks with the kernel for many tokens and without it, in turns, device times of a replay in
microseconds, and how far the results are from each other.
"""

import argparse
import json
import math
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import ml_dtypes
import numpy as np

import miniinfer_cli
from miniinfer_cli.backends.cuda.contract.program import DeviceStep
from miniinfer_cli.backends.cuda.contract.steps import Launch
from miniinfer_cli.backends.cuda.loading.loaded_program import LoadedProgram
from miniinfer_cli.backends.cuda.models.model import CudaModel
from miniinfer_cli.backends.cuda.tactics.convolution import pixel_products, stems
from miniinfer_cli.backends.cuda.tactics.convolution.grouped_products import GROUPS
from miniinfer_cli.backends.cuda.tactics.convolution.pixel_products import MANY_PIXELS
from miniinfer_cli.backends.cuda.tactics.convolution.stems import WAY as STEM
from miniinfer_cli.backends.cuda.tactics.products.few_tokens import WAY
from miniinfer_cli.backends.cuda.tactics.products.large_products import LARGE
from miniinfer_cli.backends.cuda.tuning.candidates import Candidate, Effort, collect_sites
from miniinfer_cli.backends.cuda.tuning.rig import Rig
from miniinfer_cli.backends.cuda.tuning.trials import make_trials
from miniinfer_cli.backends.interface import DeviceOptions
from miniinfer_cli.devices.opening import load
from miniinfer_cli.errors import DeviceError
from miniinfer_cli.ir import Graph, TensorType, Value, dtype_of
from miniinfer_cli.ops import annotate
from miniinfer_cli.ops.registry import OURS
from miniinfer_cli.passes.fuse_conv import fuse_conv
from miniinfer_cli.planning.freeze import freeze
from miniinfer_cli.runtime.cache_folder import cache_options
from sample_models.catalogue import generate
from sample_models.request import Request
from tests.benchmarks.joins import Replays, interleaved

DTYPES: dict[str, Any] = {"f16": np.float16, "bf16": ml_dtypes.bfloat16, "f32": np.float32}
TOLERANCE = {"f16": 1e-3, "bf16": 8e-3, "f32": 2e-3}
MODELS = {"resnet50": "resnet50", "mobilenet": "mobilenet_v2", "efficientnet": "efficientnet_b0"}
"""Generated networks, by our names of them."""
FOLLOWS = ("none", "relu", "relu6", "swish", "add", "add relu")
OURS_OF_MANY = ("large_product", "narrow_product")
_LOOKED_AT = 300  # pixels
_NBYTES_PER_US, _FLOPS_PER_US = 4.3e6, {"f16": 788e6, "bf16": 788e6, "f32": 394e6}


@dataclass(frozen=True, slots=True)
class Shape:
    """``size`` of the image before it, ``layers`` of a network that are alike."""

    features: int
    channels: int
    kernel: int
    stride: int
    size: int
    follows: str
    layers: int
    group: int = 1

    @property
    def out(self) -> int:
        """Size of the image behind it."""
        return (self.size + 2 * (self.kernel // 2) - self.kernel) // self.stride + 1

    def name(self, batch: int) -> str:
        """Pixels, features and k, and how the window moves."""
        steps = f"/{self.stride}" if self.stride > 1 else ""
        sizes = f"{batch * self.out**2}x{self.features}x{self.kernel**2 * self.channels // self.group}"
        groups = f" in {self.group} groups" if self.group > 1 else ""
        return f"{sizes} {self.kernel}x{self.kernel}{steps}{groups} {self.follows}"

    def floor_us(self, batch: int, dtype: str) -> float:
        """What its bytes or its operations take at the device's ceilings. Pixels that no window reads are not."""
        nbytes: int = np.dtype(DTYPES[dtype]).itemsize
        read = self.size**2 if self.kernel >= self.stride else self.out**2
        made = self.out**2 * self.features * (2 if "add" in self.follows else 1)
        weights = self.kernel**2 * self.channels * self.features // self.group
        moved = (batch * (read * self.channels + made) + weights) * nbytes
        return max(moved / _NBYTES_PER_US, 2 * batch * self.out**2 * weights / _FLOPS_PER_US[dtype])


def _shapes(text: str, width: int = 0) -> list[Shape]:
    """A line for each: features, channels, kernel, stride, size, layers, what follows. ``width``: channels of a group, 0: all."""
    lines = (line.split(maxsplit=6) for line in text.strip().splitlines())
    shapes = [Shape(int(n), int(c), int(k), int(s), int(px), follows, int(layers)) for n, c, k, s, px, layers, follows in lines]
    return [replace(shape, group=shape.channels // width) for shape in shapes] if width else shapes


NETWORKS = {
    "resnet50": _shapes("""
        64 3 7 2 224 1 relu
        64 64 1 1 56 1 relu
        64 64 3 1 56 3 relu
        256 64 1 1 56 3 add relu
        256 64 1 1 56 1 none
        64 256 1 1 56 2 relu
        128 256 1 1 56 1 relu
        128 128 3 2 56 1 relu
        512 128 1 1 28 4 add relu
        512 256 1 2 56 1 none
        128 512 1 1 28 3 relu
        128 128 3 1 28 3 relu
        256 512 1 1 28 1 relu
        256 256 3 2 28 1 relu
        1024 256 1 1 14 6 add relu
        1024 512 1 2 28 1 none
        256 1024 1 1 14 5 relu
        256 256 3 1 14 5 relu
        512 1024 1 1 14 1 relu
        512 512 3 2 14 1 relu
        2048 512 1 1 7 3 add relu
        2048 1024 1 2 14 1 none
        512 2048 1 1 7 2 relu
        512 512 3 1 7 2 relu
    """),
    "mobilenet": _shapes("""
        32 3 3 2 224 1 relu6
        16 32 1 1 112 1 none
        96 16 1 1 112 1 relu6
        24 96 1 1 56 1 none
        144 24 1 1 56 2 relu6
        24 144 1 1 56 1 add
        32 144 1 1 28 1 none
        192 32 1 1 28 3 relu6
        32 192 1 1 28 2 add
        64 192 1 1 14 1 none
        384 64 1 1 14 4 relu6
        64 384 1 1 14 3 add
        96 384 1 1 14 1 none
        576 96 1 1 14 3 relu6
        96 576 1 1 14 2 add
        160 576 1 1 7 1 none
        960 160 1 1 7 3 relu6
        160 960 1 1 7 2 add
        320 960 1 1 7 1 none
        1280 320 1 1 7 1 relu6
    """),
    "efficientnet": _shapes("""
        32 3 3 2 224 1 swish
        16 32 1 1 112 1 none
        96 16 1 1 112 1 swish
        24 96 1 1 56 1 none
        144 24 1 1 56 2 swish
        24 144 1 1 56 1 add
        40 144 1 1 28 1 none
        240 40 1 1 28 2 swish
        40 240 1 1 28 1 add
        80 240 1 1 14 1 none
        480 80 1 1 14 3 swish
        80 480 1 1 14 2 add
        112 480 1 1 14 1 none
        672 112 1 1 14 3 swish
        112 672 1 1 14 2 add
        192 672 1 1 7 1 none
        1152 192 1 1 7 4 swish
        192 1152 1 1 7 3 add
        320 1152 1 1 7 1 none
        1280 320 1 1 7 1 swish
    """),
    # What has groups of RegNetX-3.2GF, of RegNetX-1.6GF and 8GF, and of ResNeXt-50.
    "regnet": _shapes(
        """
        96 96 3 2 112 1 relu
        96 96 3 1 56 1 relu
        192 192 3 2 56 1 relu
        192 192 3 1 28 5 relu
        432 432 3 2 28 1 relu
        432 432 3 1 14 14 relu
        1008 1008 3 2 14 1 relu
        1008 1008 3 1 7 1 relu
    """,
        48,
    ),
    "regnet_narrow": _shapes("72 72 3 1 56 1 relu\n408 408 3 1 14 9 relu", 24),
    "regnet_wide": _shapes("240 240 3 1 28 4 relu\n720 720 3 1 14 14 relu", 120),
    "resnext": [
        Shape(width, width, 3, 1, size, "relu", layers, 32)
        for width, size, layers in ((128, 56, 3), (256, 28, 3), (512, 14, 5), (1024, 7, 2))
    ],
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", nargs="+", default=["resnet50"], choices=list(NETWORKS))
    parser.add_argument("--batch", nargs="+", type=int, default=[64])
    parser.add_argument("--dtype", default="f16", choices=list(DTYPES))
    parser.add_argument("--only", nargs="+", default=[""], help="shapes whose names contain one of these texts")
    parser.add_argument("--forms", type=int, default=8, help="of the kernel for many tokens")
    parser.add_argument("--variants", type=int, default=4, help="other ways of each library")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--disable", nargs="+", default=[], help="tactics that whole networks go without: stem")
    parser.add_argument("--whole", action="store_true", help="whole networks instead of convolutions")
    parser.add_argument("--out", type=Path, help="where all rows go as JSON")
    options = parser.parse_args()
    if options.whole:
        with tempfile.TemporaryDirectory() as folder:
            for network in options.network:
                print("\n".join(measure_whole(network, options, Path(folder))), flush=True)
        return 0
    rows: list[dict[str, Any]] = []
    with offering(options.forms):
        for network in options.network:
            for batch in options.batch:
                found = []
                for shape in NETWORKS[network]:
                    name = shape.name(batch)
                    if any(text in name for text in options.only):
                        found.append(measure(shape, batch, options))
                        print(line_of(found[-1]), flush=True)
                print(f"{network} b{batch}: {sums_of(found)}", flush=True)
                rows += [{"network": network, "batch": batch, **row} for row in found]
    if options.out:
        options.out.write_text(json.dumps(rows, indent=1))
    return int(any(row["wrong"] for row in rows))


@contextmanager
def offering(forms: int) -> Iterator[None]:
    """Nodes are offered so many forms of the kernel for many tokens, meanwhile."""
    table = replace(MANY_PIXELS, large_forms=forms)
    with patch.object(pixel_products, "MANY_PIXELS", table), patch.object(stems, "MANY_PIXELS", table):
        yield


def region(shape: Shape, batch: int, dtype: str, seed: int = 5) -> tuple[Graph, np.ndarray, np.ndarray]:
    """A graph of the convolution and what follows, of one node; the weights and the bias."""
    random, kind = np.random.default_rng(seed), DTYPES[dtype]
    channels = shape.channels // shape.group
    length = shape.kernel**2 * channels
    w = (random.standard_normal((shape.features, shape.kernel, shape.kernel, channels)) / math.sqrt(length)).astype(kind)
    b = random.standard_normal(shape.features).astype(kind)
    graph = Graph("convolution")
    sizes = ((batch, shape.size, shape.size, shape.channels), (batch, shape.out, shape.out, shape.features))
    x = graph.add_input("x", TensorType(dtype_of(w), sizes[0]))
    attrs: dict[str, Any] = {"strides": [shape.stride] * 2, "pads": [shape.kernel // 2] * 4, "group": shape.group}
    y = graph.add("ConvNHWC", x, graph.add_constant(w, "w"), graph.add_constant(b, "b"), domain=OURS, **attrs)
    if "add" in shape.follows:
        y = graph.add("Add", y, graph.add_input("z", TensorType(dtype_of(w), sizes[1])))
    y = _activated(graph, y, shape.follows, kind)
    graph.set_outputs([y])
    annotate(graph)
    fuse_conv(graph)
    return graph, w, b


def _activated(graph: Graph, y: Value, follows: str, kind: Any) -> Value:
    match follows.split()[-1]:
        case "relu":
            return graph.add("Relu", y)
        case "relu6":
            return graph.add("Clip", y, *(graph.add_constant(np.array(n, kind)) for n in (0, 6)))
        case "swish":
            return graph.add("Swish", y)
    return y


def exact(shape: Shape, pixels: np.ndarray, x: np.ndarray, w: np.ndarray, b: np.ndarray, z: np.ndarray | None) -> np.ndarray:
    """The results at some pixels, by their numbers, in f64."""
    images, rows, columns = np.unravel_index(pixels, (len(x), shape.out, shape.out))
    found = np.tile(b.astype(np.float64), (len(pixels), 1))
    for r, s in np.ndindex(shape.kernel, shape.kernel):
        down, across = rows * shape.stride + r - shape.kernel // 2, columns * shape.stride + s - shape.kernel // 2
        inside = (down >= 0) & (down < shape.size) & (across >= 0) & (across < shape.size)
        window = x[images, down.clip(0, shape.size - 1), across.clip(0, shape.size - 1)].astype(np.float64) * inside[:, None]
        of_groups = zip(np.split(window, shape.group, axis=1), np.split(w[:, r, s].astype(np.float64), shape.group), strict=True)
        found += np.concatenate([part @ taps.T for part, taps in of_groups], axis=1)
    if z is not None:
        found += z[images, rows, columns].astype(np.float64)
    match shape.follows.split()[-1]:
        case "relu":
            return np.maximum(found, 0)
        case "relu6":
            return found.clip(0, 6)
        case "swish":
            return np.asarray(found / (1 + np.exp(-found)))
    return found


def measure(shape: Shape, batch: int, options: argparse.Namespace) -> dict[str, Any]:
    """What each way takes, by its name; those whose results are wrong are named, and not timed."""
    graph, w, b = region(shape, batch, options.dtype)
    effort = Effort(1000, options.variants, 3.0, races=0, raced_each=0)
    with ExitStack() as stack:
        rig, programs, reference = placed(stack, graph, effort, _wanted)
        looks = Looks(shape, batch, rig, programs[0][1], (DTYPES[options.dtype],) * 3)
        x, *z = looks.given
        right = exact(shape, looks.pixels, x, w, b, z[0] if z else None)
        times: dict[str, float] = {}
        wrong: dict[str, float] = {}
        for candidate, program in programs:
            found, once_us = looks.found(program, 0xFF)
            error = math.inf if found is None else float(np.linalg.norm(found - right) / np.linalg.norm(right))
            if not error < TOLERANCE[options.dtype]:
                wrong[candidate.name] = error
            else:
                times[candidate.name] = time_us(rig, program, once_us, options.rounds)
    row = {"shape": shape.name(batch), "layers": shape.layers, "floor": shape.floor_us(batch, options.dtype)}
    return {**row, "favourite": reference.name, "times": times, "wrong": wrong}


def placed(
    stack: ExitStack, graph: Graph, effort: Effort, wanted: Callable[[list[Candidate]], list[Candidate]]
) -> tuple[Rig, list[tuple[Candidate, LoadedProgram]], Candidate]:
    """The programs of those candidates for a graph of one node that are ``wanted``, on the device, and the favourite."""
    model = stack.enter_context(load(freeze(graph), "cuda:0", DeviceOptions(**cache_options()))).model
    assert isinstance(model, CudaModel)
    site, *_ = collect_sites(graph, [v.type for v in graph.inputs], model.target, model.weights.holds)
    favourite, *others = site.candidates(model.target, model.libraries, effort)
    trials = make_trials(site, wanted([favourite, *others]), model.target, model)
    model.functions.prepare([kernel for trial in trials for kernel in trial.made.kernels])
    programs = [(trial.candidate, LoadedProgram(trial.made, model)) for trial in trials]
    for _, program in programs:
        stack.callback(program.close)
    return stack.enter_context(Rig(model, [program for _, program in programs], seed=3)), programs, favourite


def _wanted(candidates: Sequence[Candidate]) -> list[Candidate]:
    """The heuristic's choice, the libraries' ways, and those of the kernels for sm_90, of the one for few tokens two.

    Each does as much of the region as it can: where it does less, the rest is a pass, and the first part is chosen anew.
    """
    most: dict[str, Candidate] = {}
    for candidate in candidates:
        found = most.setdefault(candidate.name, candidate)
        if (candidate.claims or 0) > (found.claims or 0):
            most[candidate.name] = candidate
    first, *others = most.values()
    few = [c for c in others if c.key.startswith(WAY)][:2]
    large = [c for c in others if c.key.startswith((LARGE, STEM, GROUPS))]
    large = [c for c in large if c.claims == large[0].claims]  # the first does all of it
    return [first, *(c for c in others if c in few or c in large or c.key.startswith(("cudnn", "cublaslt")))]


class Looks:
    """Some pixels of a shape's results: ``given`` are the operands of a ``program`` as they lie on the device, of types ``kinds``
    (of x, of what is added, of the result), ``found`` is what a program leaves at those pixels.
    """

    def __init__(self, shape: Shape, batch: int, rig: Rig, program: LoadedProgram, kinds: tuple[Any, Any, Any]) -> None:
        self._rig, self._kind, self._sizes = rig, np.dtype(kinds[2]), (batch * shape.out**2, shape.features)
        sizes = [(batch, shape.size, shape.size, shape.channels), (batch, shape.out, shape.out, shape.features)]
        places = zip(program.made.io.inputs.values(), sizes, kinds, strict=False)
        self.given = [self._read(rig.inputs(0) + at, size, np.dtype(kind)) for at, size, kind in places]
        step = max(1, self._sizes[0] // _LOOKED_AT) | 1  # so that all places of a tile are looked at
        self.pixels = np.unique([*range(0, self._sizes[0], step), self._sizes[0] - 1])

    def _read(self, address: int, shape: tuple[int, ...], kind: Any) -> np.ndarray:
        found, stream = np.empty(shape, kind), self._rig.lanes[0].stream
        stream.copy_to_host(found.ctypes.data, address, found.nbytes)
        stream.synchronize()
        return found

    def found(self, program: LoadedProgram, poison: int) -> tuple[np.ndarray | None, float]:
        """In f64, after a run over bytes of ``poison``, None where the device refused; and the microseconds of a run that was
        not captured.
        """
        rig, (offset,) = self._rig, program.made.io.outputs.values()
        try:
            once_us = rig.run(program, 0)
            rig.lanes[0].stream.fill(rig.results(0) + offset, poison, math.prod(self._sizes) * self._kind.itemsize)
            once_us = min(once_us, rig.run(program, 0))
        except DeviceError as fault:
            print(f"{fault.message}", file=sys.stderr)
            return None, math.inf
        return self._read(rig.results(0) + offset, self._sizes, self._kind)[self.pixels].astype(np.float64), once_us


def time_us(rig: Rig, program: LoadedProgram, once_us: float, rounds: int) -> float:
    """The median of the rounds, for one copy."""
    captures = rig.capture(program, rig.copies_for(once_us))
    assert captures is not None
    found = [rig.replay(captures) for _ in range(rounds + 1)]
    captures.close()
    return statistics.median(found[1:])


def measure_whole(network: str, options: argparse.Namespace, cache: Path) -> Iterator[str]:
    """A line for each batch."""
    plan = miniinfer_cli.build(generate(MODELS[network], Request("batch", 1), dtype=options.dtype, seed=1))
    with ExitStack() as stack:
        loaded = partial(miniinfer_cli.load, plan, "cuda:0", cache=cache)
        engines = [stack.enter_context(loaded(disable_tactics=disabled)) for disabled in ([LARGE], options.disable)]
        for batch in options.batch:
            with ExitStack() as closing:
                runs = [Replays(engine, batch, closing) for engine in engines]
                times = interleaved(runs, options.rounds)
                apart, joined = (np.asarray(run.results[0], np.float64) for run in runs)
            steps = (step for step in runs[1].program.made.steps if isinstance(step, DeviceStep))
            launches = [a for step in steps for a in step.actions if isinstance(a, Launch) and a.kernel.name in OURS_OF_MANY]
            before, after = (statistics.median(listed) for listed in times)
            error = np.linalg.norm(joined - apart) / np.linalg.norm(apart)
            told = f"without {before:.1f}, with {after:.1f} us ({len(launches)} launches), results {error:.1e} apart"
            yield f"{network} b{batch} {options.dtype}: {told}"


def _library(times: dict[str, float]) -> dict[str, float]:
    return {name: us for name, us in times.items() if name.startswith(("cudnn", "cublaslt"))}


def line_of(row: dict[str, Any]) -> str:
    """The floor, each library as it is and at its best, and our forms, the fastest first."""
    told = [f"{row['shape']} x{row['layers']}: floor {row['floor']:.1f}"]
    libraries = _library(row["times"])
    for library in ("cudnn", "cublaslt"):
        of = {name: us for name, us in libraries.items() if name.startswith(library)}
        if of:
            first = next(iter(of.values()))
            told.append(f"{library} {first:.1f} (best {min(of.values()):.1f})")
    ours = sorted((us, name) for name, us in row["times"].items() if name not in libraries)
    told += [f"{name.replace(' ahead', '').replace(' together', '')} {us:.1f}" for us, name in ours[:4]]
    wrong = f"; WRONG {row['wrong']}" if row["wrong"] else ""
    return f"{'; '.join(told)}; takes {row['favourite']}{wrong}"


def sums_of(rows: Sequence[dict[str, Any]]) -> str:
    """Of all layers: the floor, the libraries as they are and at their best, ours, the best of each shape, the favourites."""

    def total(of: Callable[[dict[str, Any]], float]) -> float:
        return float(sum(row["layers"] * of(row) for row in rows))

    def ours(times: dict[str, float]) -> dict[str, float]:
        return {name: us for name, us in times.items() if name not in _library(times)} or times

    def first(row: dict[str, Any]) -> float:
        libraries = list(_library(row["times"]).values())
        return libraries[0] if libraries else min(row["times"].values())

    parts = {
        "floor": total(lambda row: row["floor"]),
        "libraries first": total(first),
        "libraries best": total(lambda row: min(_library(row["times"]).values(), default=math.nan)),
        "ours": total(lambda row: min(ours(row["times"]).values())),
        "best": total(lambda row: min(row["times"].values())),
        "favourites": total(lambda row: row["times"].get(row["favourite"], math.nan)),
    }
    return ", ".join(f"{name} {us:.0f}" for name, us in parts.items()) + " us"


if __name__ == "__main__":
    sys.exit(main())
