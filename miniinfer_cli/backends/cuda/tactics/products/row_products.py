"""Products of a few tokens by constant weights on sm_90: the tactics of a product, and of regions around one."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from miniinfer_cli.backends.choosing import Estimate
from miniinfer_cli.backends.cuda.codegen.body import body_of
from miniinfer_cli.backends.cuda.contract.site import Site, lowers, static_shape
from miniinfer_cli.backends.cuda.contract.steps import Operand
from miniinfer_cli.backends.cuda.contract.strides import broadcast_strides
from miniinfer_cli.backends.cuda.contract.tactic import Tactic
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.cuda.contract.types import element_nbytes
from miniinfer_cli.backends.cuda.contract.work import Work
from miniinfer_cli.backends.cuda.tactics.products.few_tokens import needs_arch
from miniinfer_cli.backends.cuda.tactics.products.nibble_forms import Nibbles, nibbles_of
from miniinfer_cli.backends.cuda.tactics.products.product_endings import Ending, Following, is_one_matrix
from miniinfer_cli.backends.cuda.tactics.products.product_heuristic import PRODUCTS, ProductHeuristic
from miniinfer_cli.backends.cuda.tactics.products.product_records import Operands, Product
from miniinfer_cli.backends.cuda.tactics.products.product_sm90 import MOST_OPERANDS, Finish
from miniinfer_cli.backends.cuda.tactics.products.row_product_sm90 import (
    COLUMNS,
    PACKED_STRIP,
    PackedWeights,
    PlainWeights,
    RowForm,
    RowNorm,
    RowProduct,
    forms_of,
    row_product_launch,
)
from miniinfer_cli.backends.cuda.tactics.products.weight_forms import is_matrix
from miniinfer_cli.ir import Constant, DType, Graph, Node, TensorType, Value
from miniinfer_cli.ir.parts import copy_node
from miniinfer_cli.ops import OURS
from miniinfer_cli.ops.inference import Types, infer_graph
from miniinfer_cli.ops.stored_numbers import dequantizing
from miniinfer_cli.ops.type_codes import dtype_of_code

WAY = "rows"
"""The word that keys begin with."""
REGION = "RowProduct"
"""The operation of regions that have a norm in front, weights of 4 bits, or two sums to an element."""
NORMS = ("LayerNormalization", "RMSNormalization")
_FLOATS = (DType.F16, DType.BF16, DType.F32)


def row_tactics(
    product: Product, operands: Operands, target: Target, table: ProductHeuristic = PRODUCTS, following: Following | None = None
) -> tuple[Tactic, ...]:
    """The product of rows of 16 bits, with all that is ``following`` it, in several forms; none where it does not fit."""
    p = product
    ending = Ending()
    weights = operands.constants.get(operands.b)
    stored = (p.n, p.k) if p.transpose_b else (p.k, p.n)
    if weights is None or not is_matrix(weights, *stored) or not is_one_matrix(p) or not p.a.is_half:
        return ()
    beside = p.k if p.transpose_b else p.n  # neighbours in memory
    if operands.b.offset % 16 or p.ldb % 8 or beside % 8 or not _lies_well(p.lda, p.k, p.a, operands.a):
        return ()
    ending.scale(p.alpha)
    if not (ending.add(operands.c, p.d, p.c, p.beta) and ending.add(operands.bias, p.d, p.bias)):
        return ()
    body, result = "MI_DEVICE void body() {}", p.d
    if following is None:
        ending.close(p)
    else:
        followed = ending.follow(following)
        if followed is None:
            return ()
        body, result = followed
    rows = RowProduct(
        *(p.m, p.n, p.k, p.a, result, p.lda, p.ldd),
        PlainWeights(operands.b, p.ldb, not p.transpose_b),
    )
    return _tactics(rows, ending.finish(body), operands.a, operands.d, ending.places, target, table)


def _lies_well(pitch: int, k: int, dtype: DType, x: Operand) -> bool:
    """Whether eight neighbours of a row are read at one time."""
    return x.offset % 16 == 0 and pitch * element_nbytes(dtype) % 16 == 0 and k % 8 == 0


def _tactics(
    p: RowProduct,
    finish: Finish,
    x: Operand,
    result: Operand,
    places: Sequence[Operand],
    target: Target,
    table: ProductHeuristic,
    nibbles: Nibbles | None = None,
) -> tuple[Tactic, ...]:
    if not 0 < p.columns <= COLUMNS or len(places) > MOST_OPERANDS or min(p.features, p.k) < table.rows_least:
        return ()

    def emit(work: Work, form: RowForm) -> None:
        made = p if nibbles is None else replace(p, weights=_packed(work, nibbles, p.dtype))
        work.add(row_product_launch(made, form, finish, x, result, places))

    forms = forms_of(p, target.multiprocessors)[: table.row_forms]
    estimate = _estimate(p, finish)
    needs = partial(needs_arch, table.token_arch)
    return tuple(Tactic(key_of(form), partial(emit, form=form), estimate, needs) for form in forms)


def key_of(form: RowForm) -> str:
    """What a tactic of this form is called."""
    parts = f" in {form.parts} parts" if form.parts > 1 else ""
    return f"{WAY} {form.strip} by {form.warps} warps, {form.stages} ahead{parts}"


def _estimate(p: RowProduct, finish: Finish) -> Estimate:
    """All operands read once; what follows is an operation for each operand."""
    features, w = p.features * p.halves, p.weights
    read = features * p.k * 2
    if isinstance(w, PackedWeights):
        groups = -(-p.k // w.group)
        read = features * p.k // 2 + features * groups * (element_nbytes(w.scale) + (2 if w.zeros is not None else 0))
    read += (p.tokens + (p.norm is not None)) * p.k * element_nbytes(p.dtype)
    walked = zip(finish.types, finish.rows, finish.steps, strict=True)
    read += sum((p.tokens if row else 1) * (p.features if step else 1) * element_nbytes(t) for t, row, step in walked)
    made = p.tokens * p.features
    flops = 2 * p.tokens * features * p.k + made * (1 + len(finish.types))
    return Estimate(flops, read + made * element_nbytes(p.result))


def _packed(work: Work, nibbles: Nibbles, dtype: DType) -> PackedWeights:
    """The weights' forms, derived, in the place of those that stood for their sizes."""
    points = nibbles.points(DType.BF16 if dtype is DType.F32 else dtype)
    weights, scales = work.derive(nibbles.packed()), work.derive(nibbles.scaled())
    zeros = None if points is None else work.derive(points)
    return PackedWeights(weights, scales, nibbles.scales.dtype, zeros, nibbles.group, nibbles.middle)


@lowers(REGION, domain=OURS)
def lower_row_product(site: Site) -> tuple[Tactic, ...] | None:
    """The whole region by the kernel for a few tokens; None where it cannot do all of it: the body is done node by node."""
    return row_region_tactics(site) or None


def row_region_tactics(site: Site, table: ProductHeuristic = PRODUCTS) -> tuple[Tactic, ...]:
    """A region of ``[norm], [DequantizeLinear], MatMul or Gemm, [Split in two], what is pointwise`` of dense operands.

    None where another one is there, or weights are no constants.
    """
    region = _Region.of(site)
    return () if region is None else region.tactics(table)


@dataclass(frozen=True, slots=True)
class _Region:
    """The parts of a region: ``rest`` is what follows the product, and the Split behind that, where there is one."""

    site: Site
    types: Types
    norm: Node | None
    dequantize: Node | None
    anchor: Node
    split: Node | None
    rest: tuple[Node, ...]

    @classmethod
    def of(cls, site: Site) -> "_Region | None":
        body = site.node.body
        assert body is not None
        anchors = [n for n in body if n.is_op("MatMul", "Gemm")]
        if len(anchors) != 1 or len(body.outputs) != 1:
            return None
        (anchor,) = anchors
        x = anchor.inputs[0]
        norm = None if x is None else x.producer
        dequantize = dequantizing(anchor.inputs[1])
        taken = [n for n in (norm, dequantize, anchor) if n is not None]
        behind = [n for n in body if n not in taken]
        split = behind[0] if behind and behind[0].is_op("Split") else None
        rest = tuple(behind[1:] if split is not None else behind)
        if any(v is not None and v.producer for n in taken if n is not anchor for v in n.inputs):
            return None
        if norm is not None and (norm.op not in NORMS or norm.output.users != (anchor,) or len(norm.outputs) > 1):
            return None
        if split is not None and (split.inputs[0] is not anchor.output or len(split.outputs) != 2 or not rest):
            return None
        if body.outputs[0] is not (rest[-1].output if rest else anchor.output):
            return None
        types = infer_graph(body, list(site.types))
        return cls(site, types, norm, dequantize, anchor, split, rest)

    def tactics(self, table: ProductHeuristic) -> tuple[Tactic, ...]:
        x = self.anchor.inputs[0] if self.norm is None else self.norm.inputs[0]
        norm = None if self.norm is None else self._norm(self.norm)
        wide = self._shape(x)
        if x is None or x not in self._places or (self.norm is not None and norm is None) or not wide or wide[-1] == 0:
            return ()
        k, tokens, dtype = wide[-1], math.prod(wide[:-1]), self._tensor(x).dtype
        features, turned = self._features()
        result = self._tensor(self.site.node.body.outputs[0] if self.site.node.body else None)
        if dtype not in _FLOATS or not features or not _lies_well(k, k, dtype, self._places[x]):
            return ()
        halves = 1 if self.split is None else 2
        found = self._weights(features, k, turned, dtype)
        finished = self._finish(features // halves)
        if found is None or finished is None or (self.split is not None and not self._halves(features)):
            return ()
        (weights, nibbles), (finish, places) = found, finished
        p = RowProduct(
            *(tokens, features // halves, k, dtype, result.dtype, k, features // halves, weights),
            halves,
            norm,
        )
        if nibbles is not None and halves == 2 and p.features % PACKED_STRIP:
            return ()
        return _tactics(p, finish, self._places[x], Operand.output(0), places, self.site.target, table, nibbles)

    @property
    def _places(self) -> dict[Value, Operand]:
        assert self.site.node.body is not None
        return {v: Operand.input(i) for i, v in enumerate(self.site.node.body.inputs)}

    def _tensor(self, value: Value | None) -> TensorType:
        kind = None if value is None else self.types.get(value, value.type)
        assert isinstance(kind, TensorType)
        return kind

    def _shape(self, value: Value | None) -> tuple[int, ...]:
        return static_shape(self._tensor(value))

    def _constant(self, value: Value | None) -> Constant | None:
        place = None if value is None else self._places.get(value)
        return None if place is None else self.site.handles[place.number]

    def _features(self) -> tuple[int, bool]:
        """Of the product, and whether its weights have k last; none where it is no plain product by a matrix."""
        weights, attrs = self._shape(self.anchor.inputs[1]), self.anchor.attrs
        is_gemm = self.anchor.op == "Gemm"
        plain = not attrs.get("transA", 0) and attrs.get("alpha", 1.0) == 1 and attrs.get("beta", 1.0) == 1
        if len(weights) != 2 or (is_gemm and not plain):
            return 0, False
        turned = is_gemm and bool(attrs.get("transB", 0))
        return weights[0 if turned else 1], turned

    def _norm(self, node: Node) -> RowNorm | None:
        """None where the norm is not along the last axis in f32, by operands of the rows' type."""
        x, scale, shift = (*node.inputs, None)[:3]
        if x is None or scale is None or any(v is not None and v not in self._places for v in (scale, shift)):
            return None
        rows = self._tensor(x)
        sizes = self._shape(x)
        alike = all(v is None or (self._tensor(v).dtype is rows.dtype and self._shape(v) == sizes[-1:]) for v in (scale, shift))
        along = node.attrs.get("axis", -1) in (-1, len(sizes) - 1)
        if not alike or not along or dtype_of_code(node.attrs.get("stash_type", 1)) is not DType.F32:
            return None
        place = None if shift is None else self._places[shift]
        return RowNorm(self._places[scale], place, node.attrs.get("epsilon", 1e-5), node.op == "LayerNormalization")

    def _weights(
        self, features: int, k: int, turned: bool, dtype: DType
    ) -> tuple[PlainWeights | PackedWeights, Nibbles | None] | None:
        """The weights where they lie, or how those of 4 bits are to be packed, and their sizes."""
        value = self.anchor.inputs[1]
        assert value is not None
        node = self.dequantize
        if node is None:
            beside = k if turned else features
            fits = self._constant(value) is not None and self._tensor(value).dtype is dtype and dtype.is_half and beside % 8 == 0
            return (PlainWeights(self._places[value], beside, not turned), None) if fits else None
        stored, scale, zero = (*node.inputs, None)[:3]
        handles = [self._constant(v) for v in (stored, scale, zero)]
        if scale is None or self._tensor(scale).dtype is not dtype or (zero is not None and handles[2] is None):
            return None
        axis, block = node.attrs.get("axis", 1), node.attrs.get("block_size", 0)
        nibbles = nibbles_of(handles, self._shape(stored), axis, block, 1 if turned else 0)
        if nibbles is None:
            return None
        nowhere = Operand.derived(0)
        sizes = PackedWeights(nowhere, nowhere, dtype, None if zero is None else nowhere, nibbles.group)
        return sizes, nibbles

    def _halves(self, features: int) -> bool:
        """Whether the Split cuts the features in the middle."""
        assert self.split is not None
        sizes = [self._shape(v) for v in self.split.outputs]
        rank = len(self._shape(self.anchor.output))
        along = self.split.attrs.get("axis", 0) % rank == rank - 1
        return along and features % 16 == 0 and all(s[-1] == features // 2 for s in sizes)

    def _finish(self, features: int) -> tuple[Finish, list[Operand]] | None:
        """What follows the sums, and where what it reads lies."""
        ending = Ending()
        bias = self.anchor.inputs[2] if len(self.anchor.inputs) > 2 else None
        if bias is not None:
            row, column = broadcast_strides(self._shape(bias), self._shape(self.anchor.output))
            place = self._places.get(bias)
            if self.split is not None or not ending.add(place, self._tensor(bias).dtype, (row, column)) or place is None:
                return None
        if not self.rest:
            ending.lines.append("y = narrow<MI_D>(mi_sum);")
            return ending.finish("MI_DEVICE void body() {}"), ending.places
        if self.split is None:
            followed = ending.follow(Following(self.anchor.output, self.rest, self.types, self._places))
            return None if followed is None else (ending.finish(followed[0]), ending.places)
        return self._gated(self.split)

    def _gated(self, split: Node) -> tuple[Finish, list[Operand]] | None:
        """What makes an element of two sums, and nothing else but literals."""
        graph = Graph("gated")
        halves = [graph.add_input(v.name, replace(self._tensor(v), dtype=DType.F32)) for v in split.outputs]
        inner: dict[Value, Value] = dict(zip(split.outputs, halves, strict=True))
        return _finish_of(graph, inner, self.rest, self.types, self._shape(split.outputs[0]))


def _finish_of(
    graph: Graph, inner: dict[Value, Value], rest: Sequence[Node], types: Types, shape: tuple[int, ...]
) -> tuple[Finish, list[Operand]] | None:
    for node in rest:
        if any(v is not None and v not in inner and v.constant is None for v in node.inputs):
            return None
        copy_node(graph, node, inner)
    graph.set_outputs([inner[rest[-1].output]])
    made = types[rest[-1].output]
    if not isinstance(made, TensorType) or static_shape(made) != shape:
        return None
    kinds = {mine: types.get(one, one.type) for one, mine in inner.items() if mine not in graph.inputs}
    if any(v.constant is not None and v.constant.size != 1 for v in graph.constants()):
        return None
    function = body_of(graph, {**kinds, **{v: v.type for v in graph.inputs}})
    if function is None:
        return None
    names = [("s", "second")[number] for number in function.reads]
    text = " ".join(line.strip() for line in function.code.splitlines())
    return Finish(text, f"body({', '.join(names)}, y);"), []
