"""How many rows a batch is computed with: the sizes that a plan was tuned for, else few enough to keep a program for each."""

import math
import re
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import Any

from miniinfer_cli.errors import UsageError
from miniinfer_cli.ir import Graph, TensorType
from miniinfer_cli.ir.dims import evaluate, names_in
from miniinfer_cli.serving.layout import BatchedEngine, Layout
from miniinfer_cli.wording import Wording, joined

_SIZES = Wording("batch_sizes: ", flags="--batch-sizes: ")
_DEFAULT_MOST = 32
_EXACT = 8  # rows up to which every size has a program of its own
_STEPS = 4  # to the octave beyond
_KEPT = 1024  # times that are remembered
_NEW_SHARE = 0.1  # of the newest time in those that are evened out
_MOST_TYPES = 200  # of a graph, that are looked for among those of signatures
_TYPE = re.compile(r"\b[a-z]\w*\[([0-9]{1,9}(?:,[0-9]{1,9})*)\](?!\*)")  # of an operand or result that is no constant


class BatchSizes:
    """The sizes, ascending, and how long batches of each took. Its users hold a lock."""

    def __init__(self, sizes: Sequence[int]) -> None:
        self.sizes = tuple(sizes)
        self._seconds: dict[tuple[Any, int], float] = {}
        self._in_turn: dict[tuple[Any, int], float] = {}

    @property
    def most(self) -> int:
        """The largest."""
        return self.sizes[-1]

    def holding(self, rows: int) -> int:
        """The smallest size of at least ``rows``, which are no more than ``most``."""
        return self.sizes[bisect_left(self.sizes, rows)]

    def fit(self, bucket: Any, rows: int) -> int:
        """The size to compute the first of ``rows`` waiting rows with: all of them, padded, or a smaller one, filled.

        The smaller one where it computes more rows a second, as far as that was measured for this bucket; where it was not, the
        larger one as long as at least half of it is filled.
        """
        if rows >= self.most:
            return self.most
        larger = self.holding(rows)
        below = bisect_right(self.sizes, rows)
        if larger == rows or below == 0:
            return larger
        smaller = self.sizes[below - 1]
        padded, filled = self._seconds.get((bucket, larger)), self._seconds.get((bucket, smaller))
        if padded is None or filled is None:
            return larger if larger <= 2 * rows else smaller
        return larger if padded / rows <= filled / smaller else smaller

    def seconds(self, bucket: Any, size: int, *, in_turn: bool = False) -> float:
        """What a batch of ``size`` rows takes, as far as is known, else 0. ``in_turn``: right behind another one on its device,
        during which it was put together and copied.
        """
        alone = self._seconds.get((bucket, size), 0.0)
        return min(alone, self._in_turn.get((bucket, size), alone)) if in_turn else alone

    def note_in_turn(self, bucket: Any, size: int, seconds: float) -> None:
        """A batch ended so long after the one in front of it on its device; times that are seen late even out."""
        key = (bucket, size)
        if len(self._in_turn) >= _KEPT:
            self._in_turn.clear()
        known = self._in_turn.get(key, seconds)
        self._in_turn[key] = known + _NEW_SHARE * (seconds - known)

    def note(self, bucket: Any, size: int, seconds: float) -> None:
        """A batch took so long; the shortest time counts, since first ones wait for their program."""
        key = (bucket, size)
        known = self._seconds.get(key)
        if known is None and len(self._seconds) >= _KEPT:
            self._seconds.clear()
        if known is None or seconds < known:
            self._seconds[key] = seconds


def choose_sizes(engine: BatchedEngine, layout: Layout, max_batch: int | None, asked: Sequence[int] | None) -> tuple[int, ...]:
    """Ascending sizes up to ``max_batch``: those ``asked`` for, else those that the plan was tuned for on this device, else all.

    Beyond 8 rows "all" are four to the octave, so that an engine keeps a program for each. Without ``max_batch`` the largest is
    the plan's own: of the sizes asked or tuned for, or of its range. Raises UsageError for sizes that the plan does not take.
    """
    if asked is not None and (isinstance(asked, str) or not _are_counts(asked)):
        raise UsageError(f"batch_sizes: expected whole numbers, got {asked!r}", hint="batch_sizes=[1, 8, 64]")
    if layout.fixed is not None:
        if asked is not None and tuple(asked) != (layout.fixed,):
            raise UsageError(joined("", [_SIZES, f"the plan computes {layout.fixed} rows at a time"]), hint="leave it out")
        if max_batch not in (None, layout.fixed):
            hint = joined("", ["leave it out; or ", _REBUILD])
            told = f"{max_batch} is not {layout.fixed}, the fixed batch of the plan"
            raise UsageError(Wording(f"max_batch: {told}", flags=f"--max-batch: {told}"), hint=hint)
        return (layout.fixed,)
    allowed = engine.ranges.get(layout.name)
    least, largest = (1, None) if allowed is None else (max(allowed.minimum, 1), allowed.largest)
    if max_batch is not None and not (least <= max_batch and (largest is None or max_batch <= largest)):
        told = f"the plan takes no {max_batch} rows ({allowed})"
        raise UsageError(Wording(f"max_batch: {told}", flags=f"--max-batch: {told}"), hint=_REBUILD)
    if asked is not None:
        sizes = tuple(sorted(set(asked)))
        wrong = [s for s in sizes if not least <= s <= (max_batch or largest or math.inf)]
        if wrong or not sizes:
            limit = str(allowed or "1 or more")
            if max_batch is not None:
                limit = Wording(f"max_batch={max_batch}", flags=f"--max-batch {max_batch}")
            texts = [f"{wrong[0]} rows are not among those allowed (", limit, ")"] if wrong else ["expected at least one size"]
            raise UsageError(joined("", [_SIZES, *texts]), hint="leave it out, and the plan decides")
        return sizes
    ceiling = max_batch or largest or math.inf
    tuned = [s for s in tuned_sizes(engine, layout) if least <= s <= ceiling]
    if tuned:
        return tuple(tuned if max_batch is None or tuned[-1] == max_batch else [*tuned, max_batch])
    most = max_batch or max(least, min(_DEFAULT_MOST, largest or _DEFAULT_MOST))
    return tuple(s for s in _ladder(most) if s >= least)


_REBUILD = Wording(
    "build the plan for other sizes: min_shapes and max_shapes of build()",
    flags="build the plan for other sizes: --min-shapes and --max-shapes",
)


def _are_counts(sizes: Any) -> bool:
    return isinstance(sizes, Sequence) and all(type(s) is int for s in sizes)


def _ladder(most: int) -> list[int]:
    sizes = list(range(1, min(most, _EXACT) + 1))
    while sizes[-1] < most:
        step = max(1 << (sizes[-1].bit_length() - 1), _EXACT) // _STEPS
        sizes.append(min(sizes[-1] + step, most))
    return sizes


def tuned_sizes(engine: BatchedEngine, layout: Layout) -> list[int]:
    """The sizes of the batch that the plan's section for this device was tuned for, ascending; none on a CPU.

    A section has signatures with the types of what was timed, not the sizes of dimensions. A size counts where those types occur
    that values of the graph have at it; one that only a few agree with is another dimension's.
    """
    if engine.device == "cpu":
        return []
    name = engine.model.facts().get("name")
    signatures = [r.signature for s in engine.plan.targets if s.gpu is not None and s.gpu.name == name for r in s.records]
    met = {m.group(): m.group(1) for signature in signatures for m in _TYPE.finditer(signature)}
    types = _batched_types(engine.graph, layout.name)
    others = {n: r.optimum for n, r in engine.ranges.items() if n != layout.name}
    found: dict[int, int] = {}
    for size in sorted({int(n) for shape in met.values() for n in shape.split(",")}):
        texts = {_at(t, {**others, layout.name: size}) for t in types}
        found[size] = len(texts & met.keys())
    most = max(found.values(), default=0)
    return [size for size, count in found.items() if count and 2 * count >= most]


def _batched_types(graph: Graph, name: str) -> list[TensorType]:
    """The types of the graph that hang on the batch, each once."""
    types = (v.type for v in (*graph.inputs, *(v for node in graph for v in node.outputs)))
    found = (t for t in types if isinstance(t, TensorType) and t.shape and any(name in names_in(d) for d in t.shape))
    return list({str(t): t for t in found}.values())[:_MOST_TYPES]


def _at(kind: TensorType, sizes: dict[str, int]) -> str:
    shape = [evaluate(d, sizes) for d in kind.shape or ()]
    return "" if None in shape else str(TensorType(kind.dtype, tuple(d for d in shape if d is not None)))
