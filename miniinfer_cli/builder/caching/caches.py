"""A graph whose past grows, as one over caches of a fixed capacity: the length of the past is a value by slot, not a size.

Rows are written at the length, attention sees as many as there are, positions count from there. What else uses the length
refuses the build.
"""

from collections.abc import Sequence

import numpy as np

from miniinfer_cli.builder.caching.attending import attend_by_length, readers_of
from miniinfer_cli.builder.caching.lengths import Lengths, Probed, lengths_of
from miniinfer_cli.builder.caching.pairs import Cache, find_caches
from miniinfer_cli.builder.caching.probing import Point, given_at, meaning_of, sizes_at, try_points, values_at
from miniinfer_cli.errors import MiniinferError, ModelError, UsageError
from miniinfer_cli.ir import Dim, DType, Graph, Node, StatePair, States, TensorType, Value
from miniinfer_cli.ir.dims import names_in, plain_name
from miniinfer_cli.ir.states import BUCKETS
from miniinfer_cli.ops import annotate
from miniinfer_cli.ops.insert import insert
from miniinfer_cli.passes.inline_branches import inline_branches
from miniinfer_cli.passes.remove_dead_nodes import remove_dead_nodes
from miniinfer_cli.passes.tokens_apart import expect_tokens_apart
from miniinfer_cli.wording import Wording

LENGTH = "cache_length"
"""What the input with the lengths is called, where no other input is."""


def keep_caches(
    graph: Graph, capacity: int, pairs: Sequence[tuple[str, str]], whole: Sequence[StatePair] = ()
) -> tuple[str, ...]:
    """Gives ``graph`` caches of ``capacity`` rows for ``pairs`` of an input and an output, beside those replaced ``whole``.

    Gives the names of the inputs that callers no longer give, since they follow from the lengths: masks, positions.
    Raises ModelError naming the node that uses the length in another way, UsageError for pairs that are no caches.
    """
    caches = find_caches(graph, pairs)
    found = {(c.past.name, c.present) for c in caches}
    if missing := [pair for pair in pairs if pair not in found]:
        past, present = missing[0]
        raise UsageError(
            f"state {past}:{present}: the output is not the input with new rows behind it",
            hint=Wording(
                "leave kv_cache out for states that are replaced", flags="leave --kv-cache out for states that are replaced"
            ),
        )
    job = _Job(graph, capacity, caches)
    job.rewrite()
    buckets = tuple(b for b in BUCKETS if b <= capacity) if job.tokens else (int(job.new_rows),)
    states = (*whole, *(StatePair(c.past.name, c.present, c.axis) for c in caches))
    graph.states = States(states, capacity, job.length.name, job.tokens, buckets)
    return tuple(v.name for v in job.derived)


class _Job:
    def __init__(self, graph: Graph, capacity: int, caches: Sequence[Cache]) -> None:
        self.graph = graph
        self.capacity = capacity
        self.caches = caches
        first = caches[0].new.tensor.shape or ()
        self.batch: Dim = first[0]
        self.new_rows: Dim = first[caches[0].axis]
        self.tokens = plain_name(self.new_rows) or ""
        if not self.tokens and not isinstance(self.new_rows, int):
            raise _at(caches[0].node, f"writes {self.new_rows} rows, which is neither a number nor the size of an input")
        pasts = {c.past for c in caches}
        self.derived = tuple(v for v in graph.inputs if v not in pasts and meaning_of(v))
        self.length = graph.add_input(LENGTH, TensorType(DType.I64, (self.batch,)))
        self.grown = frozenset(n for c in caches for n in names_in(c.length) if c.room is None)
        """Names of sizes of pasts that grow."""
        self._tainted: set[Value] = set(self.derived)
        """Values that are another for another length of the past, and stay so."""
        self._of_lengths: frozenset[Value] = frozenset()
        """All that is computed of lengths and other sizes alone."""
        for cache in caches:
            self._expect_room(cache)

    # -- what the model computes of lengths ------------------------------------------------------------------------

    def _probe(self) -> Probed:
        batch = self.batch if isinstance(self.batch, int) else 2
        news = [self.new_rows] if isinstance(self.new_rows, int) else [1, 3]
        room = self.capacity
        points = [
            Point(batch, new, held, room)
            for new in news
            for held in dict.fromkeys((0, 2, 5, room // 2, room - new))
            if isinstance(new, int) and 0 <= held <= room - new
        ]
        meaning: dict[str, str] = {}
        for cache in self.caches:
            shape = cache.past.tensor.shape or ()
            for dim, what in (
                (shape[0], "batch"),
                (cache.length, "held" if cache.room is None else "room"),
                (self.new_rows, "new"),
            ):
                if (name := plain_name(dim)) is not None:
                    meaning.setdefault(name, what)
        if (name := plain_name(self.batch)) is not None:
            meaning.setdefault(name, "batch")

        def compute(point: Point) -> dict[Value, np.ndarray]:
            given = {v: given_at(v, point) for v in self.derived}
            given[self.length] = np.full(point.batch, point.held)
            return values_at(self.graph, sizes_at(meaning, point), given)

        return try_points(points, compute)

    # -- rewriting -------------------------------------------------------------------------------------------------

    def rewrite(self) -> None:
        graph = self.graph
        annotate(graph)
        probed = self._probe()
        self._of_lengths = frozenset(v for _, found in probed for v in found)
        lengths = lengths_of(graph, self.length, self.caches[0].new, self.caches[0].axis, self._source())
        presents = [c.node.output for c in self.caches]
        readers = [n for n in readers_of(presents) if not n.is_op("Shape", "Size")]
        attentions = [n for n in readers if n.is_op("Attention")]
        if others := [n for n in readers if n not in attentions]:
            raise _at(others[0], f"({others[0].op}) reads a cache, and is no attention")
        for node in attentions:
            if node.inputs[1] not in presents or node.inputs[2] not in presents:
                hint = Wording(
                    "name the pairs of all caches, or of none", flags="give --state for the pairs of all caches, or for none"
                )
                raise ModelError("reads a cache as keys or as values alone", hint=hint).at(f"node {node.name!r}")
            attend_by_length(graph, node, lengths.total, probed)
        self._replace_lengths(lengths, probed)
        for cache in self.caches:
            self._write_rows(cache)
        remove_dead_nodes(graph)
        self._expect_unused(attentions)
        for value in self.derived:
            graph.remove_input(value)
        annotate(graph)
        if self.tokens:
            expect_tokens_apart(graph, self.tokens)
        self._expect_positions()

    def _source(self) -> tuple[Value, int] | None:
        """An input of the caller's and its axis that counts the new tokens; None where their number is fixed."""
        if not self.tokens:
            return None
        pasts = {c.past for c in self.caches}
        for value in self.graph.inputs:
            kind = value.type
            if value in pasts or value in self.derived or not isinstance(kind, TensorType) or kind.shape is None:
                continue
            for axis, dim in enumerate(kind.shape):
                if plain_name(dim) == self.tokens:
                    return value, axis
        raise _at(self.caches[0].node, f"writes {self.tokens} rows, and no input of the caller's tells how many these are")

    def _replace_lengths(self, lengths: Lengths, probed: Probed) -> None:
        """Puts positions and lengths by slot in the places of values that are these and follow from the length of the past."""
        tainted = self._tainted
        nodes = self.graph.nodes
        begin = 1 + next(i for i, n in enumerate(nodes) if n is lengths.positions.producer)
        for value in self.derived:
            self._stand_in(lengths, value, probed, nodes[begin] if begin < len(nodes) else None, tainted)
        for node, behind in zip(nodes[begin:], [*nodes[begin + 1 :], None], strict=False):
            reads = any(v in tainted or self._mentions(v) for v in node.inputs if v is not None)
            for value in node.outputs:
                if (reads or self._mentions(value)) and _depends_on_length(value, probed):
                    tainted.add(value)
                    self._stand_in(lengths, value, probed, behind, tainted)

    def _stand_in(self, lengths: Lengths, value: Value, probed: Probed, before: Node | None, tainted: set[Value]) -> None:
        made = lengths.stand_in(value, probed, before)
        if made is None or made is value:
            return
        self.graph.replace_uses(value, made)
        tainted.discard(value)

    def _write_rows(self, cache: Cache) -> None:
        graph, node = self.graph, cache.node
        shape = list(cache.past.tensor.shape or ())
        shape[0], shape[cache.axis] = self.batch, self.capacity
        graph.set_type(cache.past, TensorType(cache.past.tensor.dtype, tuple(shape)))
        written = insert(
            graph, "TensorScatter", cache.past, cache.new, self.length, before=node, out=node.output.name, axis=cache.axis
        )
        graph.replace_node(node, [written])

    # -- refusing --------------------------------------------------------------------------------------------------

    def _expect_room(self, cache: Cache) -> None:
        """Raises UsageError for another capacity than the model's caches have by themselves."""
        if isinstance(cache.room, int) and cache.room != self.capacity:
            raise UsageError(
                Wording(
                    f"kv_cache: {self.capacity} rows, but the cache {cache.past.name!r} has {cache.room}",
                    flags=f"--kv-cache {self.capacity}: the cache {cache.past.name!r} has {cache.room} rows",
                )
            )

    def _mentions(self, value: Value) -> bool:
        """True for what has the length of a past for a size, or among its contents."""
        kind = value.type
        if not isinstance(kind, TensorType):
            return False
        dims: list[object] = list(kind.shape or ())
        if kind.known is not None and kind.known.dtype == object:
            dims += [d for d in kind.known.reshape(-1) if not isinstance(d, int)]
        return any(names_in(d) & self.grown for d in dims if hasattr(d, "terms"))  # type: ignore[arg-type]

    def _expect_unused(self, attentions: Sequence[Node]) -> None:
        """Raises ModelError naming the first node that brings the length of the past together with what is computed of tokens."""
        written = {v.producer for v in self.graph.outputs} | set(attentions)
        for node in self.graph:
            if node in written and node.is_op("TensorScatter", "Attention"):
                continue
            if all(v in self._of_lengths for v in node.outputs) and not any(map(self.graph.is_output, node.outputs)):
                continue  # its readers are looked at
            used = [v for v in node.inputs if v is not None and (v in self._tainted or self._mentions(v))]
            if used:
                raise _at(node, f"({node.op}) uses the length of the cache, {used[0].name}, in the computation")

    def _expect_positions(self) -> None:
        """Raises UsageError where the model's table of positions ends before the cache does."""
        for node in self.graph:
            table = node.inputs[1] if node.is_op("RotaryEmbedding") and len(node.inputs) > 3 else None
            rows = None if table is None or table.constant is None else table.constant.shape[0]
            if rows is not None and rows < self.capacity:
                raise UsageError(
                    Wording(
                        f"kv_cache: {self.capacity} rows, but the model knows positions for {rows}",
                        flags=f"--kv-cache {self.capacity}: the model knows positions for {rows} tokens",
                    )
                ).at(f"node {node.name!r}")


def _depends_on_length(value: Value, probed: Probed) -> bool:
    """True for a value that is computed of lengths alone, and is another where more rows are held."""
    first: dict[tuple[int, int], np.ndarray] = {}
    for point, found in probed:
        if value not in found:
            return False
        one = first.setdefault((point.batch, point.new), found[value])
        if not np.array_equal(one, found[value], equal_nan=one.dtype.kind == "f"):
            return True
    return False


def _at(node: Node, told: str) -> MiniinferError:
    may = "only caches, masks and positions of each slot may hang on it; leave"
    instead = "out, fix the batch at 1, or export it otherwise"
    hint = Wording(f"{may} kv_cache {instead}", flags=f"{may} --kv-cache {instead}")
    return ModelError(told, hint=hint).at(f"node {node.name!r}")


def fix_cache_branch(graph: Graph) -> bool:
    """Makes a merged decoder the one with a past, which an empty past makes the other, too; True where it was one."""
    value = next((v for v in graph.inputs if v.name == "use_cache_branch"), None)
    if value is None or not isinstance(value.type, TensorType) or value.type.dtype is not DType.BOOL:
        return False
    shape = value.type.shape or ()
    sizes = tuple(d if isinstance(d, int) else 1 for d in shape)
    graph.replace_uses(value, graph.add_constant(np.ones(sizes, np.bool_), "use_cache_branch"))
    graph.remove_input(value)
    while inline_branches(graph):
        pass
    annotate(graph)
    return True
