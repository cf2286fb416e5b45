"""Ways of attention, each by itself: cuDNN, and our kernels, in graphs of copies. Results are compared first.

    python -m tests.benchmarks.attention [--shape NAME ...] [--only KEY ...] [--rounds N] [--out FILE]

Queries, keys and values are parts of one projection, as networks leave them. Microseconds of a copy with plain edges, caches
emptied before a graph begins; and, of our kernel for sm_90a, as programmatic launches ("links"). Each result is compared with the
reference in f32.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from miniinfer_cli.backends.choosing import Policy
from miniinfer_cli.backends.cuda.contract.join import label_of
from miniinfer_cli.backends.cuda.contract.program import CudaProgram, DeviceStep
from miniinfer_cli.backends.cuda.contract.site import Site
from miniinfer_cli.backends.cuda.contract.tactic import Tactic
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.cuda.joins.rotary_attention import KEY
from miniinfer_cli.backends.cuda.loading.loaded_program import LoadedProgram
from miniinfer_cli.backends.cuda.making.maker import make_program
from miniinfer_cli.backends.cuda.models.model import CudaModel
from miniinfer_cli.backends.cuda.tactics.attention.attention_heuristic import ATTENTION
from miniinfer_cli.backends.cuda.tuning.rig import Captures, Rig, likely_contents
from miniinfer_cli.backends.interface import DeviceOptions
from miniinfer_cli.devices.opening import load
from miniinfer_cli.errors import MiniinferError
from miniinfer_cli.ir import Array, Graph, TensorType, numpy_dtype
from miniinfer_cli.ops.attention import attention
from miniinfer_cli.ops.rotary import rotary_embedding
from miniinfer_cli.planning.freeze import freeze
from miniinfer_cli.runtime.cache_folder import cache_options
from tests.graph_text import typed_graph

TOLERANCE = 2e-3
SEED = 3


@dataclass(frozen=True, slots=True)
class Shape:
    """Heads, heads of keys, length and size of a head; ``mask``: "" for none, "causal", or the shape of one that is added.

    ``rotary``: queries and keys are turned first, by angles of each place. ``dtype``: of all; f32 is multiplied as TF32.
    """

    batch: int
    heads: int
    kv_heads: int
    length: int
    size: int
    mask: str = ""
    rotary: bool = False
    dtype: str = "f16"

    @property
    def text(self) -> str:
        """The graph: one projection, split, and attention."""
        q, kv = self.heads * self.size, self.kv_heads * self.size
        mask = f", m: {self.dtype}[{self.mask}]" if "," in self.mask else ""
        causal = ", is_causal=1" if self.mask == "causal" else ""
        given = ", m" if mask else ""
        turned, angles, q_name, k_name = "", "", "q", "k"
        if self.rotary:
            angles = "".join(f", {name}: {self.dtype}[{self.batch},{self.length},{self.size // 2}]" for name in "cs")
            turned = f"  qt = RotaryEmbedding(q, c, s) {{num_heads={self.heads}}}\n"
            turned += f"  kt = RotaryEmbedding(k, c, s) {{num_heads={self.kv_heads}}}\n"
            q_name, k_name = "qt", "kt"
        return (
            f"graph main(x: {self.dtype}[{self.batch},{self.length},{q + 2 * kv}]{mask}{angles}) {{\n"
            f"  n: i64[3] = const [{q},{kv},{kv}]\n  q, k, v = Split(x, n) {{axis=2}}\n{turned}"
            f"  y = Attention({q_name}, {k_name}, v{given})"
            f" {{kv_num_heads={self.kv_heads}, q_num_heads={self.heads}{causal}}}\n"
            "  return y\n}"
        )

    def exact(self, inputs: Sequence[Array]) -> Array:
        """In f32."""
        q, kv = self.heads * self.size, self.kv_heads * self.size
        parts = np.split(inputs[0].astype(np.float32), [q, q + kv], axis=2)
        mask = inputs[1].astype(np.float32) if "," in self.mask else None
        if self.rotary:
            for side, heads in enumerate((self.heads, self.kv_heads)):
                parts[side] = rotary_embedding(parts[side], *(a.astype(np.float32) for a in inputs[-2:]), num_heads=heads)
        causal = int(self.mask == "causal")
        queries, keys, values = parts
        return attention(queries, keys, values, mask, q_num_heads=self.heads, kv_num_heads=self.kv_heads, is_causal=causal)[0]


def _llama(batch: int, length: int, *, rotary: bool = False) -> Shape:
    return Shape(batch, 32, 8, length, 128, "causal", rotary)


SHAPES = {
    **{f"bert b{n}": Shape(n, 12, 12, 128, 64) for n in (1, 8, 64)},
    **{f"bert padded b{n}": Shape(n, 12, 12, 128, 64, f"{n},1,1,128") for n in (1, 64)},
    **{f"bert 384 b{n}": Shape(n, 12, 12, 384, 64) for n in (1, 8)},
    **{f"vit b{n}": Shape(n, 12, 12, 197, 64) for n in (1, 64)},
    **{f"gpt2 b{n}": Shape(n, 12, 12, 128, 64, "causal") for n in (1, 64)},
    **{f"bert tf32 b{n}": Shape(n, 12, 12, 128, 64, dtype="f32") for n in (1, 8, 64)},
    **{f"bert padded tf32 b{n}": Shape(n, 12, 12, 128, 64, f"{n},1,1,128", dtype="f32") for n in (1, 64)},
    **{f"vit tf32 b{n}": Shape(n, 12, 12, 197, 64, dtype="f32") for n in (1, 64)},
    **{f"gpt2 tf32 b{n}": Shape(n, 12, 12, 128, 64, "causal", dtype="f32") for n in (1, 64)},
    "llama 128 b1": _llama(1, 128),
    "llama 512 b1": _llama(1, 512),
    **{f"llama {length} rotary b{n}": _llama(n, length, rotary=True) for length, n in ((128, 1), (512, 1), (128, 8))},
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", nargs="+", default=list(SHAPES), choices=list(SHAPES))
    parser.add_argument("--only", nargs="+", default=[], help="ways to time: parts of their keys")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--best", type=int, default=2, help="of our kernel's cuts that are shown")
    parser.add_argument("--cuts", type=int, default=ATTENTION.warpgroup_cuts, help="of our kernel for sm_90a that are timed")
    parser.add_argument("--out", type=Path, help="where all rows go as JSON")
    options = parser.parse_args()
    object.__setattr__(ATTENTION, "warpgroup_cuts", options.cuts)  # nodes are offered what the family's table says
    rows: list[dict[str, Any]] = []
    for name in options.shape:
        found = measure(SHAPES[name], options.only, options.rounds)
        rows += [{"shape": name, **row} for row in found]
        print(line_of(name, found, options.best), flush=True)
        if options.out:
            options.out.write_text(json.dumps(rows, indent=1))
    return int(not all(row["right"] for row in rows))


def measure(shape: Shape, only: Sequence[str], rounds: int) -> list[dict[str, Any]]:
    """A row for each way."""
    graph = typed_graph(shape.text)
    types = [v.type for v in graph.inputs]
    with ExitStack() as stack:
        model = stack.enter_context(load(freeze(graph), "cuda:0", DeviceOptions(**cache_options()))).model
        assert isinstance(model, CudaModel)
        made: dict[str, CudaProgram] = {}
        for key, policy in ways(graph, model.target, joined=shape.rotary):
            if only and not any(part in key for part in only):
                continue
            try:
                made[key] = make_program(graph, types, replace(model.target, policy=policy), model.weights.holds)
            except MiniinferError as error:
                print(f"  {key}: {error.message}")
                continue
            assert isinstance(last := made[key].steps[-1], DeviceStep) and last.tactic in key, f"{key} did not do the work"
        model.functions.prepare([kernel for one in made.values() for kernel in one.kernels])
        programs = {key: LoadedProgram(one, model) for key, one in made.items()}
        for program in programs.values():
            stack.callback(program.close)
        rig = stack.enter_context(Rig(model, list(programs.values()), seed=SEED))
        inputs = drawn(next(iter(programs.values())).made)
        exact = shape.exact(inputs)
        rows = []
        for key, program in programs.items():
            once_us = min(rig.run(program, number) for number in range(2))
            wrong = error_of(rig, program.made, exact)
            row: dict[str, Any] = {"key": key, "error": wrong, "right": wrong < TOLERANCE}
            copies = rig.copies_for(min(once_us, 100.0))
            captures = rig.capture(program, copies)
            if captures is not None:
                row["plain_us"] = time_us(rig, captures, rounds)
            if "warpgroups" in key and len(program.made.steps) == 1:
                row["links_us"] = time_us(rig, linked(rig, program, copies), rounds)
            rows.append(row)
        return rows


def ways(graph: Graph, target: Target, *, joined: bool) -> Iterator[tuple[str, Policy]]:
    """All ways that the target lets attention take, each by a name; those that turn heads themselves, where it is ``joined``."""
    label = label_of(n for n in graph if n.op in ("RotaryEmbedding", "Attention"))
    for key in keys_of(graph, target, Policy(disabled=frozenset({KEY}))):
        yield ("apart " + key if joined else key), Policy(disabled=frozenset({KEY}), forced={"y": key})
    whole = {"qt": KEY}
    for key in keys_of(graph, target, Policy(forced=whole)) if joined else ():
        yield "joined " + key, Policy(forced={**whole, label: key})


def keys_of(graph: Graph, target: Target, policy: Policy) -> list[str]:
    """Of what attention is offered."""
    found: list[str] = []

    def watch(site: Site, offered: Sequence[Tactic], decision: Any) -> None:
        if site.node.op.endswith("Attention"):
            found.extend(t.key for t in offered if not t.needs(target))

    make_program(graph, [v.type for v in graph.inputs], replace(target, watch=watch, policy=policy))
    return list(dict.fromkeys(found))


def drawn(made: CudaProgram) -> list[Array]:
    """The inputs that the rig has drawn."""
    generator, inputs = np.random.default_rng(SEED), []
    for slot in made.io.inputs:
        kind = made.slots[slot].type
        assert isinstance(kind, TensorType)
        inputs.append(likely_contents(kind, generator))
    return inputs


def error_of(rig: Rig, made: CudaProgram, exact: Array) -> float:
    """Of the result of the last run."""
    (offset,) = made.io.outputs.values()
    (output,) = made.io.outputs
    kind = made.slots[output].type
    assert isinstance(kind, TensorType)
    found = np.empty(exact.shape, numpy_dtype(kind.dtype))
    stream = rig.lanes[0].stream
    stream.copy_to_host(found.ctypes.data, rig.results(1) + offset, found.nbytes)
    stream.synchronize()
    error = float(np.linalg.norm(found.astype(np.float32) - exact) / np.linalg.norm(exact))
    return error if error == error else float("inf")


class _Early:
    """A stream whose kernels may begin before the one in front has ended."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def launcher(self, *launch: Any) -> Any:
        *sizes, attributes = launch
        return self._stream.launcher(*sizes, replace(attributes, programmatic=True))


def linked(rig: Rig, program: LoadedProgram, copies: int) -> Captures:
    """A graph of copies of one launch, each of which may begin before the one in front has ended."""
    lane, calls = rig.lanes[0], []
    for copy in range(copies):
        stream: Any = _Early(lane.stream) if copy else lane.stream
        calls += program.calls(stream, partial(rig._address, program, 0, copy), lane.workspace.address)
    graph = lane.runner.capture(calls, (lane.before, lane.behind))
    assert graph is not None
    return Captures([graph], copies)


def time_us(rig: Rig, captures: Captures, rounds: int) -> float:
    """The median of the rounds, for one copy."""
    times = [rig.replay(captures) for _ in range(rounds + 1)]
    captures.close()
    return statistics.median(times[1:])


def line_of(name: str, rows: Sequence[dict[str, Any]], best: int) -> str:
    """The best of each kind of way."""
    words = [f"{name}:"]
    for kind in dict.fromkeys(kind_of(row["key"]) for row in rows):
        own = [r for r in rows if kind_of(r["key"]) == kind and "plain_us" in r]
        for row in sorted(own, key=lambda r: float(r["plain_us"]))[: best if "warpgroups" in kind else 1]:
            links = f"/{row['links_us']:.2f}" if "links_us" in row else ""
            words.append(f"{row['key']} {row['plain_us']:.2f}{links}")
        if linked_rows := [r for r in own if "links_us" in r]:
            row = min(linked_rows, key=lambda r: float(r["links_us"]))
            words.append(f"linked best {row['key']} {row['links_us']:.2f}")
    wrong = [f"{r['key']} {r['error']:.1e}" for r in rows if not r["right"]]
    return " | ".join(words) + (f" WRONG: {wrong}" if wrong else "")


def kind_of(key: str) -> str:
    """A way without its parameters."""
    words = key.split()
    return "softmax" if "softmax" in key else " ".join(words[:2]) if words[0] in ("apart", "joined") else words[0]


if __name__ == "__main__":
    sys.exit(main())
