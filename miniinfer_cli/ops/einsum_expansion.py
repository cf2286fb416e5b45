"""Einsum as Transpose, Reshape and MatMul; as Mul and ReduceSum where labels are broadcast or nothing is summed."""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from engine_format.dtypes import DType
from miniinfer_cli.ir import Dim, Graph, Node, Value
from miniinfer_cli.ops.einsum_equation import parse_equation
from miniinfer_cli.ops.expansion import Expansion

NARROW = frozenset({DType.I8, DType.U8, DType.I16, DType.U16})
"""Integers that Einsum takes, but not ReduceSum and MatMul."""

Size = Sequence[int | tuple[Value, int]]
"""A size as factors: numbers, and the sizes of axes of values."""


@dataclass(frozen=True, slots=True)
class _Labelled:
    """A value with one label for each axis."""

    value: Value
    labels: tuple[str, ...]

    @property
    def dims(self) -> dict[str, Dim]:
        """The size of each label's axis."""
        shape = self.value.tensor.shape
        if shape is None:
            raise ValueError(f"the rank of {self.value!r} is not known")
        return dict(zip(self.labels, shape, strict=True))

    def size(self, *labels: str) -> Size:
        """What the axes of ``labels`` have in all."""
        dims = self.dims
        known = [d for label in labels if isinstance(d := dims[label], int)]
        open_ = [(self.value, self.labels.index(label)) for label in labels if not isinstance(dims[label], int)]
        return [math.prod(known), *open_]


def expand_einsum(graph: Graph, node: Node) -> tuple[Value, ...]:
    """Operands are brought in one after the other, and each label is summed as soon as nothing later needs it.

    Raises ValueError when the rank of an operand is not known.
    """
    build = _Builder(graph, node)
    values = [build.required(i) for i in range(len(node.inputs))]
    ranks = [v.tensor.rank for v in values]
    if any(rank is None for rank in ranks):
        raise ValueError(f"the ranks of the operands of {node!r} are not all known")
    equation = parse_equation(node.attrs["equation"])
    *terms, output = equation.spread([rank or 0 for rank in ranks])
    dtype = values[0].tensor.dtype
    wide = DType.I32 if dtype in NARROW else dtype
    if dtype.is_half and not _rounds_once([_Labelled(v, tuple(t)) for v, t in zip(values, terms, strict=True)], output):
        wide = DType.F32  # the reference rounds once, at the end
    pending = [build.diagonal(build.cast(v, wide), labels) for v, labels in zip(values, terms, strict=True)]
    total = pending.pop(0)
    while True:
        total = build.reduce(total, {label for x in pending for label in x.labels}.union(output))
        if not pending:
            break
        following = pending.pop(0)
        later = {label for x in pending for label in x.labels}.union(output)
        total = build.multiply(total, build.reduce(following, later.union(total.labels)), later)
    result = build.cast(build.arrange(total, output).value, dtype)
    return (result if result not in values else build.op("Identity", result),)


def _rounds_once(xs: Sequence[_Labelled], output: Collection[str]) -> bool:
    """Whether one ReduceSum or one MatMul does all the arithmetic."""
    if len(xs) > 2 or any(len(set(x.labels)) < len(x.labels) for x in xs):
        return False
    if len(xs) == 1:
        return True
    a, b = xs
    inner = [label for label in a.labels if label not in output]
    return bool(inner) and set(inner) == set(b.labels).difference(output) and all(a.dims[i] == b.dims[i] for i in inner)


class _Builder(Expansion):
    """The steps that an equation is made of."""

    def diagonal(self, value: Value, labels: Sequence[str]) -> _Labelled:
        """Leaves each label one axis: where it has two, all but the diagonal becomes zero, and one of them is summed."""
        axes = list(labels)
        while len(set(axes)) < len(axes):
            second = next(i for i, label in enumerate(axes) if label in axes[:i])
            first = axes.index(axes[second])
            size = self.op("Squeeze", self.op("Shape", value, start=first, end=first + 1), self.integers([0]))
            count = self.op("Range", self.scalar(0, DType.I64), size, self.scalar(1, DType.I64))
            along = [self.op("Unsqueeze", count, self.integers([i for i in range(len(axes)) if i != a])) for a in (first, second)]
            off = self.scalar(0, value.tensor.dtype)
            value = self.op("Where", self.op("Equal", *along), value, off)
            value = self.op("ReduceSum", value, self.integers([second]), keepdims=0)
            del axes[second]
        return _Labelled(value, tuple(axes))

    def reduce(self, x: _Labelled, keep: Collection[str]) -> _Labelled:
        """Sums the axes whose labels are not in ``keep``."""
        gone = [i for i, label in enumerate(x.labels) if label not in keep]
        if not gone:
            return x
        value = self.op("ReduceSum", x.value, self.integers(gone), keepdims=0)
        return _Labelled(value, tuple(label for label in x.labels if label in keep))

    def multiply(self, a: _Labelled, b: _Labelled, keep: Collection[str]) -> _Labelled:
        """The product of two operands, summed over the labels that they share and that are not in ``keep``."""
        shared = [label for label in a.labels if label in b.labels]
        batch, inner = ([s for s in shared if (s in keep) is kept] for kept in (True, False))
        rows = [label for label in a.labels if label not in shared]
        columns = [label for label in b.labels if label not in shared]
        if not inner or any(a.dims[label] != b.dims[label] for label in inner):
            labels = (*batch, *rows, *inner, *columns)
            product = self.op("Mul", self._stretch(a, labels), self._stretch(b, labels))
            return self.reduce(_Labelled(product, labels), {*batch, *rows, *columns})
        first = self._matrix(self.arrange(a, (*batch, *rows, *inner)), batch, rows, inner)
        second = self._matrix(self.arrange(b, (*batch, *inner, *columns)), batch, inner, columns)
        product = self.op("MatMul", first, second)
        if len(rows) <= 1 and len(columns) <= 1:
            gone = [len(batch) + i for i, group in enumerate((rows, columns)) if not group]
            product = self.op("Squeeze", product, self.integers(gone)) if gone else product
        else:
            shape = product.tensor.shape or ()
            sizes: list[Size] = [[d if isinstance(d, int) else (product, i)] for i, d in enumerate(shape[: len(batch)])]
            sizes += [a.size(label) for label in rows] + [b.size(label) for label in columns]
            product = self._reshape(product, sizes)
        return _Labelled(product, (*batch, *rows, *columns))

    def arrange(self, x: _Labelled, labels: Sequence[str]) -> _Labelled:
        """The axes in another order."""
        perm = [x.labels.index(label) for label in labels]
        if perm == list(range(len(perm))):
            return x
        return _Labelled(self.op("Transpose", x.value, perm=perm), tuple(labels))

    def _stretch(self, x: _Labelled, labels: Sequence[str]) -> Value:
        """An axis for every one of ``labels``, of size 1 where ``x`` has none."""
        inside = self.arrange(x, [label for label in labels if label in x.labels]).value
        missing = [i for i, label in enumerate(labels) if label not in x.labels]
        return self.op("Unsqueeze", inside, self.integers(missing)) if missing else inside

    def _matrix(self, x: _Labelled, batch: Sequence[str], rows: Sequence[str], columns: Sequence[str]) -> Value:
        """A stack of matrices: the axes of ``rows`` become one, and those of ``columns``."""
        if len(rows) > 1 or len(columns) > 1:
            return self._reshape(x.value, [*(x.size(label) for label in batch), x.size(*rows), x.size(*columns)])
        missing = [len(batch) + i for i, group in enumerate((rows, columns)) if not group]
        return self.op("Unsqueeze", x.value, self.integers(missing)) if missing else x.value

    def _reshape(self, value: Value, sizes: Sequence[Size]) -> Value:
        numbers = [math.prod(f for f in size if isinstance(f, int)) for size in sizes]
        open_ = [i for i, size in enumerate(sizes) if any(not isinstance(f, int) for f in size)]
        if not open_ or (len(open_) == 1 and 0 not in numbers):
            target = self.integers([-1 if i in open_ else number for i, number in enumerate(numbers)])
        else:
            target = self.op("Concat", *(self._size(size) for size in sizes), axis=0)
        return self.op("Reshape", value, target, allowzero=1)

    def _size(self, size: Size) -> Value:
        """A size as a vector of one number, computed where it is not known."""
        pieces = [
            self.integers([f]) if isinstance(f, int) else self.op("Shape", f[0], start=f[1], end=f[1] + 1) for f in size if f != 1
        ]
        total = pieces[0] if pieces else self.integers([1])
        for piece in pieces[1:]:
            total = self.op("Mul", total, piece)
        return total
