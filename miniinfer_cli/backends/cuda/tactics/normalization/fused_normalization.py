"""FusedNormalization: a normalization of rows, with what is computed element by element in front of it and behind it."""

import itertools
import math
from dataclasses import dataclass
from functools import partial

from miniinfer_cli.backends.choosing import Estimate
from miniinfer_cli.backends.cuda.codegen.kernel import reads_rows
from miniinfer_cli.backends.cuda.codegen.normalizing import normalized_launch
from miniinfer_cli.backends.cuda.codegen.row_parts import Norm, Part, Rows, Shape, Source
from miniinfer_cli.backends.cuda.contract.estimating import elements, nbytes
from miniinfer_cli.backends.cuda.contract.site import Site, lowers
from miniinfer_cli.backends.cuda.contract.steps import Lowered, Operand
from miniinfer_cli.backends.cuda.contract.strides import broadcast_strides, spread_strides
from miniinfer_cli.backends.cuda.contract.tactic import Tactic, tactic_of
from miniinfer_cli.backends.cuda.contract.types import element_nbytes
from miniinfer_cli.backends.cuda.contract.viewing import reads_strided
from miniinfer_cli.backends.cuda.tactics.normalization.normalized_rows import NormalizedRows, Stage
from miniinfer_cli.backends.cuda.tactics.normalization.normalizing import NORMALIZATION_FLOPS, real_dtype
from miniinfer_cli.backends.cuda.tactics.normalization.row_groups import RowGroups, row_ways
from miniinfer_cli.ir import DType, Graph, TensorType, Value
from miniinfer_cli.ops import OURS
from miniinfer_cli.ops.inference import Types, infer_graph
from miniinfer_cli.ops.type_codes import dtype_of_code


@lowers("FusedNormalization", domain=OURS)
def lower_fused_normalization(site: Site) -> tuple[Tactic, ...] | None:
    """One kernel with the rows in registers; None for bodies that it does not compute, and rows that are too long."""
    return normalization_tactics(site) or None


def normalization_tactics(site: Site) -> tuple[Tactic, ...]:
    """How the threads of a kernel may share the rows, the favourite first; nothing where none computes the region."""
    region = _Region.of(site)
    return () if region is None else tuple(tactic_of(g.key, partial(region.by, g), region.estimate()) for g in region.ways())


@reads_strided("FusedNormalization", domain=OURS)
def reads_rows_of_region(site: Site, number: int) -> bool:
    """Rows at multiples of 16 bytes, of an operand that is read so alone."""
    region = _Region.of(site)
    if region is None or number not in region.read_by_rows():
        return False
    return reads_rows(site.shape(number), site.strides(number), element_nbytes(site.dtype(number)))


@dataclass(frozen=True, slots=True)
class _Region:
    """A region at its site. ``shape`` is that of every result."""

    site: Site
    body: Graph
    types: Types
    parts: NormalizedRows
    shape: tuple[int, ...]

    @staticmethod
    def of(site: Site) -> "_Region | None":
        body = site.node.body
        assert body is not None
        types = infer_graph(body, site.types)
        parts = NormalizedRows.of(body, types)
        return None if parts is None else _Region(site, body, types, parts, site.out_shape())

    def ways(self) -> tuple[RowGroups, ...]:
        """How threads may share the rows."""
        rows = [r for s in self._sources() if not s.is_single for _, r in s.pieces]
        kinds = [*self._kinds, *(r.dtype for r in rows), *(t.dtype for t in self.site.results if isinstance(t, TensorType))]
        multiple = math.gcd(self.shape[-1], *(n for r in rows for n in r.strides))
        count = math.prod(self.shape[:-1])
        return row_ways(count, self.shape[-1], max(map(element_nbytes, kinds)), self.site.target, multiple)

    def estimate(self) -> Estimate:
        """Rows of tables that are read, all else once; operations by the bodies' weights."""
        looked_up = [s.rows for s in self._sources() if s.indices is not None]
        tables = {r.operand.number for r in looked_up}
        count = elements(self.site.results[0])
        moved = sum(nbytes(t) for i, t in enumerate(self.site.types) if i not in tables)
        moved += sum(count * element_nbytes(r.dtype) for r in looked_up)
        weights = sum(s.body.weight for s in (self.parts.before, self.parts.after) if s.body is not None)
        return Estimate((NORMALIZATION_FLOPS + weights) * count, moved + sum(map(nbytes, self.site.results)))

    def by(self, groups: RowGroups) -> Lowered:
        """The one launch."""
        norm, rows = self.parts.norm, math.prod(self.shape[:-1])
        scale, bias = (self._affine(v) for v in (*norm.inputs[1:], None)[:2])
        assert scale is not None
        real = real_dtype(dtype_of_code(norm.attrs.get("stash_type", 1)))
        record = Norm(*self._kinds, real, norm.attrs.get("epsilon", 1e-5), norm.op == "LayerNormalization", scale, bias)
        shape = Shape(self.shape[:-1], self.shape[-1], groups.width, groups.loads, groups.grid(rows), groups.block)
        launch = normalized_launch(shape, self._part(self.parts.before), record, self._part(self.parts.after))
        return Lowered((launch,), in_place=self._in_place())

    def read_by_rows(self) -> set[int]:
        """The numbers of the inputs that are read row by row as they lie, and not in another way as well."""
        found = self._operands() | {self._number(v) for s in self.parts.stacks.values() for v, _ in s.pieces}
        return found - self._read_otherwise()

    def _operands(self) -> set[int]:
        """The numbers of the inputs that the stages read row by row."""
        return {self._number(v) for s in (self.parts.before, self.parts.after) for v in s.operands if v in self.body.inputs}

    def _read_otherwise(self) -> set[int]:
        """Those of the scale and the bias, of tables and of indices."""
        others = (*self.parts.norm.inputs[1:], *(v for n in self.parts.gathers.values() for v in n.inputs))
        return {self._number(v) for v in others if v is not None}

    def _in_place(self) -> dict[int, tuple[int, ...]]:
        """Results may be written over rows that nobody reads any more; while the first are written, the later are to be read."""
        late = {self._number(v) for v in self.parts.after.operands if v in self.body.inputs}
        stacked = {self._number(v) for s in self.parts.stacks.values() for v, _ in s.pieces}
        found: dict[int, tuple[int, ...]] = {}
        for k, value in enumerate(self.body.outputs):
            free = self._operands() - self._read_otherwise() - stacked - (late if value in self.parts.before.results else set())
            nbytes = element_nbytes(self.site.out_dtype(k))
            fitting = [i for i in sorted(free) if self.site.shape(i)[-len(self.shape) :] == self.shape]
            found[k] = tuple(i for i in fitting if element_nbytes(self.site.dtype(i)) == nbytes)
        return {k: v for k, v in found.items() if v}

    @property
    def _kinds(self) -> tuple[DType, DType]:
        """The types of what the norm reads and makes."""
        x = self.parts.norm.inputs[0]
        assert x is not None
        return self._dtype(x), self._dtype(self.parts.norm.output)

    def _dtype(self, value: Value) -> DType:
        kind = self.types.get(value, value.type)
        assert isinstance(kind, TensorType)
        return kind.dtype

    def _number(self, value: Value) -> int:
        return self.body.inputs.index(value)

    def _sources(self) -> list[Source]:
        return [s for part in (self.parts.before, self.parts.after) for v in part.operands if (s := self._source(v)) is not None]

    def _source(self, value: Value) -> Source | None:
        """How an operand of a stage is read; None for what the norm makes."""
        if value is self.parts.norm.output:
            return None
        gather = self.parts.gathers.get(value)
        if gather is not None:
            table, indices = (self._number(v) for v in gather.inputs if v is not None)
            ends = (*self.site.shape(indices), 1)
            at = Rows(Operand.input(indices), self.site.dtype(indices), broadcast_strides(ends, self.shape)[:-1])
            *items, size, length = self.site.shape(table)  # a table for each item, where there are such
            walk = [size * length] * len(items) + [0] * (len(self.shape) - 1 - len(items))
            rows = Rows(Operand.input(table), self.site.dtype(table), tuple(walk))
            return Source(rows, indices=at, size=size)
        stack = self.parts.stacks.get(value)
        if stack is not None:
            first, *others = (self._piece(v, shape) for v, shape in stack.pieces)
            starts = itertools.accumulate(shape[stack.axis] for _, shape in stack.pieces[:-1])
            return Source(first, axis=stack.axis, behind=tuple(zip(starts, others, strict=True)))
        number = self._number(value)
        *front, last = spread_strides(self.site.shape(number), self.site.strides(number), self.shape)
        return Source(Rows(Operand.input(number), self.site.dtype(number), tuple(front)), last == 0 and self.shape[-1] > 1)

    def _piece(self, value: Value, shape: tuple[int, ...]) -> Rows:
        """Rows of an input, repeated to this shape."""
        number = self._number(value)
        *front, _ = spread_strides(self.site.shape(number), self.site.strides(number), shape)
        return Rows(Operand.input(number), self.site.dtype(number), tuple(front))

    def _affine(self, value: Value | None) -> Rows | None:
        if value is None:
            return None
        return Rows(Operand.input(self._number(value)), self._dtype(value), (0,) * (len(self.shape) - 1))

    def _part(self, stage: Stage) -> Part:
        stored = {v: Operand.output(k) for k, v in enumerate(self.body.outputs)}
        return Part(stage.body, tuple(map(self._source, stage.operands)), tuple(map(stored.get, stage.results)))
