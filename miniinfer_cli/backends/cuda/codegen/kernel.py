"""The kernel around a body: which operand is read how, the text, and the launch.

Axes are merged first, over all operands; what is left of them decides the form:

- *flat*: operands are dense or of one element. A thread moves vectors of up to 16 bytes, several at a time.
- *rows*: some operand broadcasts along an axis, and the last axis is a multiple of the vector. A vector lies in one row, so
  that its coordinates are found once for all of its elements.
- *gather*: the same where the last axis is odd. Dense operands come in vectors, the others element by element.

Sizes and strides are arguments; the text depends on the body, the number of merged axes, and who broadcasts along which.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from miniinfer_cli.backends.cuda.codegen.body import Body
from miniinfer_cli.backends.cuda.contract.steps import Argument, Kernel, Launch, Operand
from miniinfer_cli.backends.cuda.contract.strides import (
    broadcast_strides,
    is_in_rows,
    merge_axes,
    reach,
    row_major,
    spread_strides,
)
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.cuda.contract.types import c_type, element_nbytes
from miniinfer_cli.backends.cuda.launching.division import dividers
from miniinfer_cli.backends.cuda.launching.grids import BLOCK, index_dtype, index_name, launch_over

_VECTOR = 16  # bytes of the widest operand that a thread moves at once
_FLIGHT = 64  # bytes of dense operands that a thread has under way, about
_COPIES = 128  # operations that a thread's elements may come to in the text, about: more costs time to compile
_MOST_COPIES = 1024  # from here on, vectors are made shorter
_ALIGNMENT = 16


@dataclass(frozen=True, slots=True)
class Source:
    """An operand of a kernel and its shape, which broadcasts onto the results'; dense without ``strides``."""

    operand: Operand
    shape: tuple[int, ...]
    strides: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class _Layout:
    sizes: tuple[int, ...]  # of the merged axes
    strides: tuple[tuple[int, ...], ...]  # of each operand along them

    def is_dense(self, number: int) -> bool:
        return self.strides[number] == row_major(self.sizes) or self.count == 1

    def is_single(self, number: int) -> bool:
        return not any(self.strides[number]) and not self.is_dense(number)

    def broadcasts(self) -> list[int]:
        """Numbers of the operands that are neither dense nor of one element."""
        return [i for i in range(len(self.strides)) if not self.is_dense(i) and not self.is_single(i)]

    @property
    def count(self) -> int:
        return math.prod(self.sizes)

    @property
    def reach(self) -> int:
        """What every number of an element is below: an operand that is part of another may reach further than the results."""
        return max(self.count, *(reach(self.sizes, s) for s in self.strides)) if self.strides else self.count


def is_dense(shape: Sequence[int], full: Sequence[int]) -> bool:
    """True when nothing of an operand of ``shape`` is repeated to make ``full``."""
    return math.prod(shape) == math.prod(full)


def pointwise_launch(
    body: Body, sources: Sequence[Source], results: Sequence[Operand], full: Sequence[int], target: Target
) -> Launch[Operand] | None:
    """The launch of ``body`` over ``full``, the shape of every result; None where that has no elements."""
    if 0 in full:
        return None
    layout = _layout(full, sources)
    aligned = not any(o.offset % _ALIGNMENT for o in (*(s.operand for s in sources), *results))
    width = _width(body) if aligned else 1
    form = "flat"
    if layout.broadcasts():
        form = "rows" if layout.sizes[-1] % width == 0 else "gather"
    text = _Text(body, layout, form, width)
    index = index_dtype(layout.reach)
    arguments: list[Argument] = [*(s.operand for s in sources), *results, index.type(layout.count)]
    if form != "flat":
        arguments += _broadcast_arguments(layout, width if form == "rows" else 1, index)
    vectors = -(-layout.count // width)
    kernel = Kernel("pointwise", "", (("MI_INDEX", index_name(layout.reach)),), text.whole())
    return launch_over(kernel, vectors, tuple(arguments), target.multiprocessors)


def reads_rows(shape: Sequence[int], strides: Sequence[int], nbytes: int) -> bool:
    """True when a kernel reads an operand of elements of ``nbytes`` through these strides: in vectors, as it does a dense one."""
    unit = max(_ALIGNMENT // nbytes, 4)
    return bool(shape) and shape[-1] > 1 and is_in_rows(shape, strides, unit)


def _layout(full: Sequence[int], sources: Sequence[Source]) -> _Layout:
    strides = [spread_strides(s.shape, row_major(s.shape) if s.strides is None else s.strides, full) for s in sources]
    sizes, merged = merge_axes(full, broadcast_strides(full, full), *strides)
    return _Layout(sizes, tuple(merged[1:]))


def _width(body: Body) -> int:
    """Elements of a vector: 16 bytes of the widest type, and at least 4 bytes of the narrowest."""
    sizes = [element_nbytes(d) for d in (*body.operands, *body.results)]
    width = max(_VECTOR // max(sizes), 4 // min(sizes), 1)
    while width > 1 and width * body.weight > _MOST_COPIES:
        width //= 2
    return width


def _broadcast_arguments(layout: _Layout, width: int, index: "np.dtype[Any]") -> list[Argument]:
    """Sizes of the axes behind the first with what divides by them, and the strides of each operand that broadcasts."""
    sizes = (*layout.sizes[1:-1], layout.sizes[-1] // width)
    return [np.array(sizes, index), dividers(sizes), *(np.array(layout.strides[i], index) for i in layout.broadcasts())]


class _Text:
    """The text of the kernel for one layout's pattern."""

    def __init__(self, body: Body, layout: _Layout, form: str, width: int) -> None:
        self.body = body
        self.layout = layout
        self.form = form
        self.width = width
        self.dense = [i for i in range(len(body.operands)) if layout.is_dense(i)]
        self.singles = [i for i in range(len(body.operands)) if layout.is_single(i)]
        self.broadcasts = layout.broadcasts()
        self.flight = self._flight()

    def _flight(self) -> int:
        loaded = max(self.width * sum(element_nbytes(self.body.operands[i]) for i in self.dense), 1)
        copies = _COPIES // (self.width * self.body.weight)
        return max(1, min(4, _FLIGHT // loaded, copies))

    def whole(self) -> str:
        head = f'#include "pointwise.cuh"\n{self.body.code}{self._signature()}'
        return f"{head} {{\n  mi_take_turn();\n{self._singles()}{self._vectors()}{self._tail()}}}\n"

    def _signature(self) -> str:
        parameters = [f"const {self._c(i)}* x{i}" for i in range(len(self.body.operands))]
        parameters += [f"{c_type(d)}* y{i}" for i, d in enumerate(self.body.results)]
        parameters.append("index_t count")
        if self.form != "flat":
            axes = len(self.layout.sizes)
            parameters += [f"Indices<{axes - 1}> sizes", f"Dividers<{axes - 1}> by"]
            parameters += [f"Indices<{axes}> s{i}" for i in self.broadcasts]
        return f'extern "C" __global__ void __launch_bounds__({BLOCK}) pointwise({", ".join(parameters)})'

    def _c(self, number: int) -> str:
        return c_type(self.body.operands[number])

    def _singles(self) -> str:
        return "".join(f"  const {self._c(i)} a{i} = x{i}[0];\n" for i in self.singles)

    def _vectors(self) -> str:
        """The loop over whole vectors: all loads of a round, then the arithmetic and the stores."""
        w, f = self.width, self.flight
        held = "".join(f"    {self._held(i)} p{i}[{f}];\n" for i in (*self.dense, *self.broadcasts))
        loads = "".join(f"        p{i}[u] = *((const Pack<{self._c(i)}, {w}>*)x{i} + i);\n" for i in self.dense)
        loads += self._broadcast_loads()
        packs = "".join(f"        Pack<{c_type(d)}, {w}> r{k};\n" for k, d in enumerate(self.body.results))
        stores = "".join(f"        *((Pack<{c_type(d)}, {w}>*)y{k} + i) = r{k};\n" for k, d in enumerate(self.body.results))
        arguments = [self._element(i) for i in range(len(self.body.operands))]
        arguments += [f"r{k}.d[e]" for k in range(len(self.body.results))]
        return (
            f"  const index_t vectors = count / {w}, step = mi_step();\n"
            f"  for (index_t first = mi_first(); first < vectors; first += {f} * step) {{\n"
            f"{held}"
            f"#pragma unroll\n    for (int u = 0; u < {f}; u++) {{\n"
            f"      const index_t i = first + u * step;\n      if (i < vectors) {{\n{loads}      }}\n    }}\n"
            f"#pragma unroll\n    for (int u = 0; u < {f}; u++) {{\n"
            f"      const index_t i = first + u * step;\n      if (i < vectors) {{\n{packs}"
            f"#pragma unroll\n        for (int e = 0; e < {w}; e++) body({', '.join(arguments)});\n"
            f"{stores}      }}\n    }}\n  }}\n"
        )

    def _held(self, number: int) -> str:
        c = self._c(number)
        return c if self._is_repeated(number) else f"Pack<{c}, {self.width}>"

    def _is_repeated(self, number: int) -> bool:
        """True when one element of the operand serves a whole vector."""
        return self.form == "rows" and number in self.broadcasts and self.layout.strides[number][-1] == 0

    def _element(self, number: int) -> str:
        if number in self.singles:
            return f"a{number}"
        return f"p{number}[u]" if self._is_repeated(number) else f"p{number}[u].d[e]"

    def _broadcast_loads(self) -> str:
        if not self.broadcasts:
            return ""
        if self.form == "rows":
            text = self._coordinates("i", self.width, "        ")
            for i in self.broadcasts:
                address = f"x{i} + ({self._offset(i)})"
                text += f"        p{i}[u] = *({address if self._is_repeated(i) else f'(const {self._held(i)}*)({address})'});\n"
            return text
        text = f"#pragma unroll\n        for (int e = 0; e < {self.width}; e++) {{\n"
        text += self._coordinates(f"i * {self.width} + e", 1, "          ")
        text += "".join(f"          p{i}[u].d[e] = x{i}[{self._offset(i)}];\n" for i in self.broadcasts)
        return f"{text}        }}\n"

    def _coordinates(self, index: str, unit: int, margin: str) -> str:
        """c0, c1 ... of the vector or element of this index along the merged axes; the last in elements."""
        last = len(self.layout.sizes) - 1
        lines = [f"index_t rest = {index}, q;"]
        for axis in range(last, 0, -1):
            inner = f"rest - q * sizes.d[{axis - 1}]"
            value = f"({inner}) * {unit}" if axis == last and unit != 1 else inner
            lines.append(f"q = divide(rest, sizes.d[{axis - 1}], by, {axis - 1}); const index_t c{axis} = {value}; rest = q;")
        lines.append("const index_t c0 = rest;")
        return "".join(f"{margin}{line}\n" for line in lines)

    def _offset(self, number: int) -> str:
        """Where the operand's element lies; its last stride is 1 where it is not 0."""
        strides = self.layout.strides[number]
        last = len(strides) - 1
        terms = [f"c{a}" if a == last else f"c{a} * s{number}.d[{a}]" for a in range(last + 1) if strides[a]]
        return " + ".join(terms)

    def _tail(self) -> str:
        """What is left behind the last whole vector, element by element; rows are whole vectors."""
        if self.form == "rows" or self.width == 1:
            return ""
        loads = self._coordinates("i", 1, "    ") if self.broadcasts else ""
        arguments = []
        for i in range(len(self.body.operands)):
            arguments.append(f"a{i}" if i in self.singles else f"x{i}[{self._offset(i) if i in self.broadcasts else 'i'}]")
        held = "".join(f"    {c_type(d)} r{k};\n" for k, d in enumerate(self.body.results))
        arguments += [f"r{k}" for k in range(len(self.body.results))]
        stores = "".join(f"    y{k}[i] = r{k};\n" for k in range(len(self.body.results)))
        return (
            f"  for (index_t i = vectors * {self.width} + mi_first(); i < count; i += step) {{\n"
            f"{loads}{held}    body({', '.join(arguments)});\n{stores}  }}\n"
        )
