"""Products of few tokens by constant weights on sm_90: the tactics, and what follows a sum in the same kernel."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from miniinfer_cli.backends.choosing import Estimate
from miniinfer_cli.backends.cuda.codegen.body import body_of
from miniinfer_cli.backends.cuda.contract.problems import Activation
from miniinfer_cli.backends.cuda.contract.steps import Derived, Operand
from miniinfer_cli.backends.cuda.contract.strides import broadcast_strides, merge_axes
from miniinfer_cli.backends.cuda.contract.tactic import Tactic
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.cuda.contract.types import element_nbytes
from miniinfer_cli.backends.cuda.contract.work import Work
from miniinfer_cli.backends.cuda.tactics.products.product_heuristic import PRODUCTS, ProductHeuristic
from miniinfer_cli.backends.cuda.tactics.products.product_records import Operands, Product, estimate_of
from miniinfer_cli.backends.cuda.tactics.products.product_sm90 import (
    MOST_OPERANDS,
    MOST_SCALES_NBYTES,
    PIECE,
    Finish,
    Rows,
    keeps_rows,
    pack_of,
    product_launch,
)
from miniinfer_cli.backends.cuda.tactics.products.token_forms import FEATURES, Form, TokenProduct, forms_of, grid_of
from miniinfer_cli.backends.cuda.tactics.products.weight_forms import is_matrix, tiles_of
from miniinfer_cli.ir import DType, Graph, Node, TensorType, Type, Value
from miniinfer_cli.ir.parts import copy_node, is_literal, reading

WAY = "tokens"
"""The word that keys begin with."""
_TAILS = {Activation.NONE: "mi_sum", Activation.RELU: "math::relu(mi_sum)", Activation.GELU_TANH: "math::gelu_tanh(mi_sum)"}


@dataclass(slots=True)
class Ending:
    """What follows a sum, as it is put together: lines over ``mi_sum``, and the operands that they read as x0, x1 ..."""

    lines: list[str] = field(default_factory=lambda: ["float mi_sum = s;"])
    operands: list[tuple[Operand, DType, int, int]] = field(default_factory=list)

    def read(self, operand: Operand, dtype: DType, row: int, step: int) -> str:
        """The name of an operand's element: ``row`` elements lie from token to token, ``step`` from feature to feature."""
        self.operands.append((operand, dtype, row, step))
        return f"x{len(self.operands) - 1}"

    def finish(self, body: str) -> Finish:
        """All of it as one text."""
        types, rows, steps = (
            (tuple(column) for column in list(zip(*self.operands, strict=True))[1:]) if self.operands else ((),) * 3
        )
        return Finish(body, "{ " + " ".join(self.lines) + " }", types, steps, rows)


@dataclass(frozen=True, slots=True)
class Extra:
    """What the kernel does besides the product.

    ``rows`` are normalized: ``forms`` makes the weights for that, then what ``line`` reads as x0 and so on, ``read`` rows of f32,
    by which a sum over the tokens as they are becomes ``mi_sum``. ``summary``: where statistics of the results go.
    """

    rows: Rows | None = None
    forms: Callable[[], tuple[Derived, ...]] | None = None
    read: int = 0
    line: str = ""
    summary: Operand | None = None


NOTHING_ELSE = Extra()


def token_tactics(
    product: Product, operands: Operands, target: Target, table: ProductHeuristic = PRODUCTS, extra: Extra = NOTHING_ELSE
) -> tuple[Tactic, ...]:
    """The product by the kernel for few tokens, in several forms, the one that moves least first; none where it does not fit."""
    ending = Ending()
    if not _begins(ending, product, operands, extra):
        return ()
    ending.lines.append(f"y = narrow<MI_D>({_TAILS[product.activation]});")
    return _tactics(product, operands, ending, "MI_DEVICE void body() {}", product.d, target, table, extra)


def region_tactics(
    product: Product,
    operands: Operands,
    value: Value,
    rest: Sequence[Node],
    types: Mapping[Value, Type | None],
    places: Mapping[Value, Operand],
    target: Target,
    table: ProductHeuristic = PRODUCTS,
    extra: Extra = NOTHING_ELSE,
) -> tuple[Tactic, ...]:
    """The same with ``rest``, all that follows the product's ``value`` in a region; the last of these nodes makes the result.

    ``places``: where other values lie that they read. None where they are not pointwise, or read what no two strides describe.
    """
    ending = Ending()
    made, result = types[value], types[rest[-1].output]
    if not isinstance(made, TensorType) or not isinstance(result, TensorType) or result.shape != made.shape:
        return ()
    if not _begins(ending, product, operands, extra):
        return ()
    graph, outer, kinds = _as_function(value, rest, types)
    if any(v.constant is not None and v.constant.size != 1 for v in graph.constants()):
        return ()
    function = body_of(graph, kinds)
    if function is None:
        return ()
    names = []
    for number in function.reads:
        read = outer[number]
        walk = None if read is value else _walk(types[read], made)
        if read is value:
            names.append("mi_sum")
        elif walk is None or read not in places:
            return ()
        else:
            names.append(ending.read(places[read], function.operands[len(names)], *walk))
    ending.lines.append(f"body({', '.join(names)}, y);")
    text = " ".join(line.strip() for line in function.code.splitlines())
    return _tactics(product, operands, ending, text, result.dtype, target, table, extra)


def _as_function(
    value: Value, rest: Sequence[Node], types: Mapping[Value, Type | None]
) -> tuple[Graph, list[Value], dict[Value, Type | None]]:
    """The nodes as a graph of their own, in which the product's value is f32; what its inputs are outside; types of all."""
    graph = Graph("finish")
    inner: dict[Value, Value] = {}
    outer = [v for v in reading(rest) if not is_literal(v)]
    for one in outer:
        inner[one] = graph.add_input(one.name, types[one])
    for node in rest:
        copy_node(graph, node, inner)
    graph.set_outputs([inner[rest[-1].output]])
    kinds = {mine: types.get(one, one.type) for one, mine in inner.items()}
    kind = types[value]
    assert isinstance(kind, TensorType)
    return graph, outer, {**kinds, inner[value]: replace(kind, dtype=DType.F32)}


def _walk(kind: Type | None, made: TensorType) -> tuple[int, int] | None:
    """Elements of an operand from token to token and from feature to feature; None where no two numbers say that."""
    if not isinstance(kind, TensorType) or kind.shape is None or made.shape is None:
        return None
    shape = [int(n) for n in made.shape]
    walk = broadcast_strides([int(n) for n in kind.shape], shape)
    if walk[-1] not in (0, 1):
        return None
    sizes, (rows,) = merge_axes(shape[:-1], walk[:-1])
    if len(sizes) > 1:
        return None
    return (rows[0] if rows else 0), walk[-1]


def _begins(ending: Ending, p: Product, operands: Operands, extra: Extra) -> bool:
    """Adds what the product itself has behind a sum. False where the kernel cannot."""
    lies_well = operands.a.offset % 16 == 0 and p.lda * element_nbytes(p.a) % 16 == 0
    matches = p.a == p.b and (p.a.is_half or p.a is DType.F32) and (p.d == p.a or p.d is DType.F32)
    if p.batch or p.transpose_a or p.a_zero is not None or p.b_zero is not None or not matches or not lies_well:
        return False
    if extra.line:
        for number in range(extra.read):
            ending.read(Operand.derived(1 + number), DType.F32, 0, 1)
        ending.lines.append(extra.line)
    if p.alpha != 1:
        ending.lines.append(f"mi_sum *= {_literal(p.alpha)};")
    for operand, walk, factor in ((operands.c, p.c, p.beta), (operands.bias, p.bias, 1.0)):
        if operand is None or walk is None:
            continue
        if walk[1] not in (0, 1):
            return False
        name = ending.read(operand, p.d, *walk)
        ending.lines.append(f"mi_sum += widen({name}){'' if factor == 1 else f' * {_literal(factor)}'};")
    return True


def _literal(number: float) -> str:
    return f"{float(np.float32(number))!r}f"


def _tactics(
    product: Product,
    operands: Operands,
    ending: Ending,
    body: str,
    result: DType,
    target: Target,
    table: ProductHeuristic,
    extra: Extra,
) -> tuple[Tactic, ...]:
    p = product
    weights = operands.constants.get(operands.b)
    stored = (p.n, p.k) if p.transpose_b else (p.k, p.n)
    sizes = table.few_tokens.start <= p.m < table.few_tokens.stop and p.n >= FEATURES and p.k * element_nbytes(p.a) >= 128
    if weights is None or not is_matrix(weights, *stored) or not sizes or len(ending.operands) > MOST_OPERANDS:
        return ()
    if p.a is DType.F32 and not target.tf32:
        return ()
    tokens = TokenProduct(p.m, p.n, p.k, p.a, result, p.lda, p.ldd)
    finish = ending.finish(body)
    summed = extra.summary is None or (p.n % PIECE == 0 and pack_of(tokens, finish, _places(operands, ending)) * 8 == PIECE)
    rows = extra.rows
    if not summed or (rows is not None and (p.k % PIECE or not p.a.is_half)):
        return ()
    if rows is not None and rows.kept is not None and not keeps_rows(tokens):
        return ()
    room = min(target.shared_nbytes, table.most_tokens_nbytes) - (MOST_SCALES_NBYTES if extra.rows else 0)
    forms = forms_of(tokens, target.multiprocessors, room)[: table.token_forms]
    whole = estimate_of(p)

    def tactic(form: Form) -> Tactic:
        def emit(work: Work) -> None:
            packed, *_ = [work.derive(d) for d in (extra.forms() if extra.forms else (tiles_of(weights, p),))]
            read = [operand for operand, *_ in ending.operands]
            action = product_launch(
                *(tokens, form, finish, operands.a, packed, operands.d, read), rows=extra.rows, summary=extra.summary
            )
            work.add(action)

        flops = 2 * math.prod(grid_of(tokens, form)) // form.split * FEATURES * form.rows * form.tokens * p.k
        return Tactic(_key(form), emit, Estimate(flops, whole.nbytes), partial(_needs, table.token_arch))

    return tuple({t.key: t for t in map(tactic, reversed(forms))}.values())[::-1]


def _key(form: Form) -> str:
    shared = f", {form.sharing} together" if form.sharing > 1 else ""
    beside = f", {form.residents} beside" if form.residents > 1 else ""
    parts = f" in {form.split} parts" if form.split > 1 else ""
    return f"{WAY} {FEATURES * form.rows}x{form.tokens}, {form.stages} ahead{shared}{beside}{parts}"


def _needs(arch: int, target: Target) -> str:
    return "" if target.arch == arch else f"it is for sm_{arch} alone, and this is sm_{target.arch}"


def _places(operands: Operands, ending: Ending) -> list[Operand]:
    return [operands.d, *(operand for operand, *_ in ending.operands)]
