"""Regions of a normalization by statistics, a product of the normalized rows, and the elementwise operations behind it."""

import math
from functools import partial

import numpy as np

from miniinfer_cli.backends.cuda.contract.site import Site, lowers
from miniinfer_cli.backends.cuda.contract.steps import Operand
from miniinfer_cli.backends.cuda.contract.tactic import Tactic
from miniinfer_cli.backends.cuda.tactics.products.few_tokens import Extra, Scaling
from miniinfer_cli.backends.cuda.tactics.products.fused_matmul import product_in_front, whole_tactics
from miniinfer_cli.backends.cuda.tactics.products.product_records import Product
from miniinfer_cli.backends.cuda.tactics.products.product_sm90 import PIECE, KeptRows, Rows
from miniinfer_cli.backends.cuda.tactics.products.weight_forms import is_matrix, scaled_columns, scaled_tiles
from miniinfer_cli.ir import Constant, Graph, Node, Value
from miniinfer_cli.ir.parts import copy_node
from miniinfer_cli.ops import OURS


@lowers("NormalizedProduct", domain=OURS)
def lower_normalized_product(site: Site) -> tuple[Tactic, ...]:
    """The kernel for few or for many tokens over rows as they are: sums are normalized, by weights that the scale has gone into.

    The first node of the body is NormalizeByStatistics; what it makes is the body's second output where others read it.
    None where the kernel cannot do all of it.
    """
    body = site.node.body
    assert body is not None
    norm, anchor = body.nodes[0], body.nodes[1]
    number = {v: i for i, v in enumerate(body.inputs)}
    x, statistics, scale, shift = (*(None if v is None else number.get(v) for v in norm.inputs), None)[:4]
    if x is None or statistics is None or scale is None or body.inputs[x].users != (norm,):
        return ()
    if norm.output.users != (anchor,) or anchor.inputs[0] is not norm.output or norm.output in anchor.inputs[1:]:
        return ()
    by, plus = site.handles[scale], None if shift is None else site.handles[shift]
    if by is None or by.dtype is not site.dtype(x) or (shift is not None and (plus is None or plus.dtype is not by.dtype)):
        return ()
    inner = _without(site, norm, body.inputs[x])
    product, operands = product_in_front(inner) or (None, None)
    weights = None if operands is None else operands.constants.get(operands.b)
    if product is None or weights is None or not _fits(site, product, weights, statistics):
        return ()
    centred, factor = bool(norm.attrs.get("centred", 1)), _factor(by)
    tiles = partial(scaled_tiles, weights, product, by, plus, factor, sums=centred)
    columns = partial(scaled_columns, weights, product, by, plus, factor, centred=centred)
    shifted = None if shift is None else Operand.input(shift)
    kept = KeptRows(Operand.output(1), Operand.input(scale), shifted) if len(body.outputs) > 1 else None
    rows = Rows(Operand.input(statistics), norm.attrs.get("epsilon", 1e-5), centred, kept)
    assert inner.node.body is not None
    return whole_tactics(inner, inner.node.body.nodes, Extra(rows, Scaling(tiles, columns, factor, centred, plus is not None)))


def _fits(site: Site, product: Product, weights: Constant, statistics: int) -> bool:
    p = product
    stored = (p.n, p.k) if p.transpose_b else (p.k, p.n)
    pieces = site.shape(statistics)
    return p.k % PIECE == 0 and pieces[-2:] == (p.k // PIECE, 2) and p.a.is_half and p.lda == p.k and is_matrix(weights, *stored)


def _factor(scale: Constant) -> float:
    """A power of two that keeps products of a scale of more than one with weights within their type; 1 where none is needed."""
    largest = float(np.max(np.abs(scale.array().astype(np.float64)), initial=0))
    return 2.0 ** -math.ceil(math.log2(largest)) if 1 < largest < math.inf else 1.0


def _without(site: Site, norm: Node, x: Value) -> Site:
    """The site of what follows ``norm`` in the body, which reads ``x`` in the place of the normalized rows."""
    body = site.node.body
    assert body is not None
    part, graph = Graph("FusedMatMul"), Graph("region")
    values = {v: part.add_input(v.name, v.type) for v in body.inputs}
    values[norm.output] = values[x]
    for node in body.nodes[1:]:
        copy_node(part, node, values)
    part.set_outputs([values[body.outputs[0]]])
    operands = [graph.add_input(v.name, v.type) for v in body.inputs]
    made = graph.new_value(body.outputs[0].name, site.results[0])
    region = graph.add_node("FusedMatMul", operands, [made], domain=OURS, name=site.node.name, body=part)
    return Site(region, site.types, site.results[:1], site.handles, site.target)
