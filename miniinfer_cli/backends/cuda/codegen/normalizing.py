"""Rows that are computed element by element, normalized, and computed on, as one generated kernel: its text and its launch.

A group of threads holds a row in registers (``group.cuh``). An operand has an element for each of a row, or one for the whole
row; its rows lie where strides along the axes in front say, or are those of a table that indices name. Sizes and strides are
arguments.
"""

import math
from typing import Any

import numpy as np

from miniinfer_cli.backends.cuda.codegen.row_parts import Norm, Part, Rows, Shape, Source
from miniinfer_cli.backends.cuda.contract.steps import NULL, Argument, Kernel, Launch, Operand
from miniinfer_cli.backends.cuda.contract.strides import merge_axes, reach, row_major
from miniinfer_cli.backends.cuda.contract.types import c_type, element_nbytes
from miniinfer_cli.backends.cuda.launching.division import dividers
from miniinfer_cli.backends.cuda.launching.grids import index_dtype, index_name
from miniinfer_cli.ir import DType

NAME = "normalize_computed"
_EARLY_NBYTES = 64  # of a thread's registers that an operand may take which is read long before it is needed


def normalized_launch(shape: Shape, before: Part, norm: Norm, after: Part) -> Launch[Operand]:
    """The launch over rows, of which there is one at least. ``after`` without a body stores what the norm gives."""
    text = _Text(shape, before, norm, after)
    kernel = Kernel(NAME, "", (("MI_INDEX", index_name(text.reach)),), text.whole())
    return Launch(kernel, shape.grid, shape.block, text.arguments())


class _Text:
    def __init__(self, shape: Shape, before: Part, norm: Norm, after: Part) -> None:
        self.shape, self.before, self.norm, self.after = shape, before, norm, after
        self.sources = list(dict.fromkeys(s for s in (*before.sources, *after.sources) if s is not None))
        lies = [r for s in self.sources for r in (s.indices or s.rows, *(rows for _, rows in s.pieces))]
        tables = {s.rows: s.size for s in self.sources if s.indices}
        self.places = list(dict.fromkeys(lies))
        units = [(s.indices or s.rows, 1 if s.indices or s.is_single else shape.length) for s in self.sources if not s.behind]
        units += [(s.rows, shape.length) for s in self.sources if s.indices]  # where the table of an item begins
        walked = [r for r, unit in units if not self._is_dense(r, unit)]
        walked += [rows for s in self.sources if s.behind for _, rows in s.pieces]
        strides = list(dict.fromkeys(r.strides for r in walked if any(r.strides)))
        # An axis along which pieces lie one behind the other keeps a coordinate of its own.
        axes = list(dict.fromkeys(s.axis for s in self.sources if s.behind))
        alone = [tuple(int(i == axis) for i in range(len(shape.axes))) for axis in axes]
        self.sizes, (_, *merged) = merge_axes(shape.axes, row_major(shape.axes), *strides, *alone)
        self.walks = dict(zip(strides, merged, strict=False))
        self.stacked = {axis: walk.index(1) for axis, walk in zip(axes, merged[len(strides) :], strict=True)}
        self.rows = math.prod(shape.axes)
        ends = [reach(shape.axes, r.strides) + tables.get(r, 1) * shape.length for r in self.places]
        self.reach = max(self.rows * shape.length, *ends)

    def _is_dense(self, rows: Rows, unit: int) -> bool:
        """True where rows of ``unit`` elements lie one behind the other, so that the number of one says where it is."""
        dense = row_major(self.shape.axes)
        return all(n == 1 or a == b * unit for n, a, b in zip(self.shape.axes, rows.strides, dense, strict=True))

    # -- arguments, in the order of the parameters -----------------------------------------------------------------

    def arguments(self) -> tuple[Argument, ...]:
        index: np.dtype[Any] = index_dtype(self.reach)
        found: list[Argument] = [r.operand for r in self.places]
        found += [o for _, o, _ in self._results()]
        found += [self.norm.scale.operand, NULL if self.norm.bias is None else self.norm.bias.operand]
        found += [index.type(self.rows), np.int32(self.shape.length // self.shape.width), np.float64(self.norm.epsilon)]
        found += [index.type(s.size) for s in self.sources if s.indices is not None]
        found += [index.type(start) for s in self.sources for start, _ in s.behind]
        if self._has_coordinates:
            found += [np.array(self.sizes, index), dividers(self.sizes)]
            found += [np.array(w, index) for w in self.walks.values()]
        return tuple(found)

    def _results(self) -> list[tuple[str, Operand, DType]]:
        """Name, place and type of each result that is stored."""
        parts = (("r", self.before, self.norm.x), ("q", self.after, self.norm.y))
        found: list[tuple[str, Operand, DType]] = []
        for letter, part, kind in parts:
            kinds = (kind,) if part.body is None else part.body.results
            found += [(f"{letter}{i}", o, d) for i, (o, d) in enumerate(zip(part.results, kinds, strict=True)) if o is not None]
        return found

    def _parameters(self) -> str:
        found = [f"const {c_type(r.dtype)}* x{i}" for i, r in enumerate(self.places)]
        found += [f"{c_type(d)}* to_{name}" for name, _, d in self._results()]
        found += [f"const {c_type(self.norm.scale.dtype)}* scale", f"const {self._bias()}* bias"]
        found += ["index_t rows", "int packs", "double epsilon"]
        found += [f"index_t size{i}" for i, s in enumerate(self.sources) if s.indices is not None]
        found += [f"index_t start{i}_{n}" for i, s in enumerate(self.sources) for n in range(len(s.behind))]
        if self._has_coordinates:
            axes = len(self.sizes)
            found += [
                f"Indices<{axes}> sizes",
                f"Dividers<{axes}> by",
                *(f"Indices<{axes}> w{i}" for i in range(len(self.walks))),
            ]
        return ", ".join(found)

    def _bias(self) -> str:
        return c_type(self._wide if self.norm.bias is None else self.norm.bias.dtype)

    @property
    def _wide(self) -> DType:
        """What the scale and the bias are applied in."""
        return DType.F64 if self.norm.y is DType.F64 else DType.F32

    # -- text ------------------------------------------------------------------------------------------------------

    def whole(self) -> str:
        bodies = "".join(
            f"namespace {name} {{\n{part.body.code}}}\n"
            for name, part in (("before", self.before), ("after", self.after))
            if part.body is not None
        )
        head = f'extern "C" __global__ void __launch_bounds__(512) {NAME}({self._parameters()})'
        return (
            f'#include "normalized_rows.cuh"\n{bodies}{head} {{\n  mi_take_turn();\n'
            "  const index_t row = (index_t)blockIdx.x * blockDim.y + threadIdx.y;\n  const bool there = row < rows;\n"
            f"{self._places()}{self._loads()}{self._before()}"
            f"  {c_type(self.norm.real)} mean;\n"
            f"  const {c_type(self.norm.real)} inverse = centre_row<{str(self.norm.centred).lower()}>"
            f"(v, packs, ({c_type(self.norm.real)})epsilon, mean);\n"
            f"  if (!there) return;\n{self._after()}}}\n"
        )

    def _places(self) -> str:
        """Where the row of each operand begins, and the element of those that have one for a row."""
        lines: list[str] = []
        if self._has_coordinates:
            lines.append("index_t rest = there ? row : 0, next;")
            for a in range(len(self.sizes) - 1, 0, -1):
                lines.append(
                    f"next = divide(rest, sizes.d[{a}], by, {a}); const index_t c{a} = rest - next * sizes.d[{a}]; rest = next;"
                )
            lines.append("const index_t c0 = rest;")
        for i, source in enumerate(self.sources):
            x, c = f"x{self.places.index(source.rows)}", c_type(source.rows.dtype)
            if source.indices is not None:
                index = f"x{self.places.index(source.indices)}[{self._offset(source.indices, '1')}]"
                item = f"({self._offset(source.rows, self._length)}) + " if any(source.rows.strides) else ""
                lines.append(f"const {c}* b{i} = {x} + {item}(there ? table_row({index}, size{i}) : 0) * {self._length};")
            elif source.behind:
                lines.append(f"const {c}* b{i} = {self._stack(i, source)};")
            elif source.is_single:
                lines.append(f"const {c} a{i} = {x}[there ? {self._offset(source.rows, '1')} : 0];")
            else:
                lines.append(f"const {c}* b{i} = {x} + ({self._offset(source.rows, self._length)});")
        return "".join(f"  {line}\n" for line in lines)

    @property
    def _has_coordinates(self) -> bool:
        return bool(self.walks or self.stacked)

    def _stack(self, number: int, source: Source) -> str:
        """Where the row begins in the piece that it is of: the last that begins at its place or in front of it."""
        axis, text = self.stacked[source.axis], ""
        for n, (_, rows) in enumerate(source.pieces):
            start = "" if n == 0 else f" - start{number}_{n - 1}"
            x = f"x{self.places.index(rows)} + ({self._walk(rows, axis, start)})"
            text = x if n == 0 else f"c{axis} >= start{number}_{n - 1} ? {x} : {text}"
        return text

    @property
    def _length(self) -> str:
        return f"((index_t)packs * {self.shape.width})"

    def _offset(self, rows: Rows, length: str) -> str:
        """Where the row begins; ``length``: of rows that lie one behind the other."""
        if not any(rows.strides):
            return "0"
        if self._is_dense(rows, 1 if length == "1" else self.shape.length):
            return "row" if length == "1" else f"row * {length}"
        return self._walk(rows)

    def _walk(self, rows: Rows, axis: int = -1, less: str = "") -> str:
        """The offset by coordinates, of which that along ``axis`` counts from further on."""
        if not any(rows.strides):
            return "0"
        number, strides = list(self.walks).index(rows.strides), self.walks[rows.strides]
        terms = (f"(c{a}{less})" if a == axis and less else f"c{a}" for a in range(len(strides)))
        return " + ".join(f"{c} * w{number}.d[{a}]" for (a, s), c in zip(enumerate(strides), terms, strict=True) if s) or "0"

    def _columns(self, body: str, margin: str = "  ") -> str:
        """``body`` for each pack of the thread, number p, which begins at element c of the row."""
        return (
            f"#pragma unroll\n{margin}for (int p = 0; p < {self.shape.loads}; p++) {{\n"
            f"{margin}  const int c = (threadIdx.x + p * blockDim.x) * {self.shape.width};\n{body}{margin}}}\n"
        )

    def _held(self, dtype: DType) -> str:
        return f"several<{c_type(dtype)}, {self.shape.width}>"

    def _is_early(self, dtype: DType) -> bool:
        return self.shape.loads * self.shape.width * element_nbytes(dtype) <= _EARLY_NBYTES

    def _load(self, number: int, margin: str) -> str:
        source = self.sources[number]
        return f"{margin}p{number}[p] = load_pack<{c_type(source.rows.dtype)}, {self.shape.width}>(b{number} + c);\n"

    def _load_affine(self, margin: str) -> str:
        w = self.shape.width
        text = f"{margin}gain[p] = load_pack<{c_type(self.norm.scale.dtype)}, {w}>(scale + c);\n"
        return text if self.norm.bias is None else f"{text}{margin}shift[p] = load_pack<{self._bias()}, {w}>(bias + c);\n"

    def _numbers(self, part: Part) -> list[int]:
        """The numbers of the sources of a part that have an element for each of a row."""
        return [self.sources.index(s) for s in dict.fromkeys(part.sources) if s is not None and not s.is_single]

    def _loads(self) -> str:
        """Everything that is on its way before anything is computed."""
        first = self._numbers(self.before)
        others = [i for i in self._numbers(self.after) if i not in first]
        held = "".join(f"  {self._held(self.sources[i].rows.dtype)} p{i}[{self.shape.loads}];\n" for i in (*first, *others))
        held += f"  {self._held(self.norm.scale.dtype)} gain[{self.shape.loads}];\n"
        if self.norm.bias is not None:
            held += f"  {self._held(self.norm.bias.dtype)} shift[{self.shape.loads}];\n"
        early = [*first, *(i for i in others if self._is_early(self.sources[i].rows.dtype))]
        text = "".join(self._load(i, "      ") for i in early)
        loads = f"    if (there && c < packs * {self.shape.width}) {{\n{text}    }}\n"
        if self._is_early(self.norm.scale.dtype):
            loads += f"    if (c < packs * {self.shape.width}) {{\n{self._load_affine('      ')}    }}\n"
        return held + self._columns(loads)

    def _before(self) -> str:
        """v, the elements to be normalized, and what else the first part stores."""
        n, wide = self.shape.width, c_type(self.norm.real)
        if self.before.body is None:
            x, packs = self._element(self.before.sources[0]), ""
        else:
            is_stored = self.before.results[0] is not None
            x = "r0.d[k]" if is_stored else "x"
            packs = "" if is_stored else f"        {c_type(self.norm.x)} x;\n"
            packs += self._call("before", self.before, "r", "        ")
        stored = self._stores("r", self.before)
        if self.before.body is None and self.before.results[0] is not None:
            stored = (
                f"        store_pack<{c_type(self.norm.x)}, {n}>(to_r0 + {self._here}, p{self._numbers(self.before)[0]}[p]);\n"
            )
        body = (
            f"    if (there && c < packs * {n}) {{\n{self._packs('r', self.before)}"
            f"#pragma unroll\n      for (int k = 0; k < {n}; k++) {{\n{packs}"
            f"        v[p][k] = ({wide})widen({x});\n      }}\n{stored}    }} else {{\n"
            f"#pragma unroll\n      for (int k = 0; k < {n}; k++) v[p][k] = ({wide})0;\n    }}\n"
        )
        return f"  {wide} v[{self.shape.loads}][{n}];\n" + self._columns(body)

    def _after(self) -> str:
        n, wide, y = self.shape.width, c_type(self._wide), c_type(self.norm.y)
        late = [i for i in self._numbers(self.after) if i not in self._numbers(self.before)]
        loads = "".join(self._load(i, "    ") for i in late if not self._is_early(self.sources[i].rows.dtype))
        if not self._is_early(self.norm.scale.dtype):
            loads += self._load_affine("    ")
        shifted = f"{wide} scaled = ({wide})(v[p][k] * inverse) * ({wide})widen(gain[p].d[k]);"
        if self.norm.bias is not None:
            shifted += f"\n      scaled = scaled + ({wide})widen(shift[p].d[k]);"
        lines = f"      {shifted}\n      const {y} y = narrow<{y}>(scaled);\n"
        if self.after.body is None:
            packs, lines = f"    {self._held(self.norm.y)} q0;\n", lines + "      q0.d[k] = y;\n"
            stores = f"    store_pack<{y}, {n}>(to_q0 + {self._here}, q0);\n"
        else:
            packs = self._packs("q", self.after, "    ")
            lines += self._call("after", self.after, "q", "      ")
            stores = self._stores("q", self.after, "    ")
        body = f"    if (c >= packs * {n}) continue;\n{loads}{packs}"
        body += f"#pragma unroll\n    for (int k = 0; k < {n}; k++) {{\n{lines}    }}\n{stores}"
        return self._columns(body)

    @property
    def _here(self) -> str:
        return f"row * {self._length} + c"

    def _element(self, source: Source | None) -> str:
        if source is None:
            return "y"
        number = self.sources.index(source)
        return f"a{number}" if source.is_single else f"p{number}[p].d[k]"

    def _packs(self, letter: str, part: Part, margin: str = "      ") -> str:
        if part.body is None:
            return ""
        kinds = zip(part.results, part.body.results, strict=True)
        return "".join(f"{margin}{self._held(d)} {letter}{i};\n" for i, (o, d) in enumerate(kinds) if o is not None)

    def _call(self, name: str, part: Part, letter: str, margin: str) -> str:
        """The call of a part's body; a result that is not stored is called x."""
        arguments = [self._element(s) for s in part.sources]
        arguments += [f"{letter}{i}.d[k]" if o is not None else "x" for i, o in enumerate(part.results)]
        return f"{margin}{name}::body({', '.join(arguments)});\n"

    def _stores(self, letter: str, part: Part, margin: str = "      ") -> str:
        if part.body is None:
            return ""
        kinds = enumerate(zip(part.results, part.body.results, strict=True))
        return "".join(
            f"{margin}store_pack<{c_type(d)}, {self.shape.width}>(to_{letter}{i} + {self._here}, {letter}{i});\n"
            for i, (o, d) in kinds
            if o is not None
        )
