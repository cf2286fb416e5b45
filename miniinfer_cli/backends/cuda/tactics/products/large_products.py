"""Products of many tokens on sm_90: the tactics, and what follows a sum in the same kernel."""

import math
from functools import partial

from miniinfer_cli.backends.choosing import Estimate
from miniinfer_cli.backends.cuda.contract.steps import Operand
from miniinfer_cli.backends.cuda.contract.tactic import Tactic
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.cuda.contract.types import element_nbytes
from miniinfer_cli.backends.cuda.contract.work import Work
from miniinfer_cli.backends.cuda.tactics.products.byte_product_sm90 import ByteForm
from miniinfer_cli.backends.cuda.tactics.products.few_tokens import NOTHING_ELSE, Extra, filled_k, moved_nbytes, needs_arch
from miniinfer_cli.backends.cuda.tactics.products.large_product_sm90 import (
    MOST_PITCH,
    LargeForm,
    LargeProduct,
    LargeRows,
    has_pieces,
    is_normalized,
    is_whole,
    large_forms,
    large_launch,
    large_us,
    leaves_by_map,
    tiles_along,
)
from miniinfer_cli.backends.cuda.tactics.products.narrow_product_sm90 import NarrowForm, narrow_forms, narrow_launch, narrow_us
from miniinfer_cli.backends.cuda.tactics.products.product_endings import Ending, Following, is_one_matrix
from miniinfer_cli.backends.cuda.tactics.products.product_heuristic import PRODUCTS, ProductHeuristic
from miniinfer_cli.backends.cuda.tactics.products.product_records import Operands, Product
from miniinfer_cli.backends.cuda.tactics.products.product_sm90 import MOST_OPERANDS, Finish
from miniinfer_cli.backends.cuda.tactics.products.row_pitch import VECTOR, aligned
from miniinfer_cli.backends.cuda.tactics.products.token_forms import FEATURES
from miniinfer_cli.backends.cuda.tactics.products.weight_forms import columns_of, is_matrix
from miniinfer_cli.ir import DType

LARGE = "large"
"""The word that keys begin with."""


def large_tactics(
    product: Product, operands: Operands, target: Target, table: ProductHeuristic = PRODUCTS, extra: Extra = NOTHING_ELSE
) -> tuple[Tactic, ...]:
    """The product by the kernel for many tokens, in several forms, the one that takes least first; none where it does not fit."""
    ending = Ending()
    if not _begins(ending, product, operands, target, table):
        return ()
    ending.close(product)
    return _tactics(product, operands, ending.finish("MI_DEVICE void body() {}"), ending, product.d, target, table, extra)


def large_region_tactics(
    product: Product,
    operands: Operands,
    following: Following,
    target: Target,
    table: ProductHeuristic = PRODUCTS,
    extra: Extra = NOTHING_ELSE,
) -> tuple[Tactic, ...]:
    """The same with what follows the product. None where that is not pointwise, or reads what no two strides describe."""
    ending = Ending()
    begins = _begins(ending, product, operands, target, table)
    followed = ending.follow(following) if begins else None
    if followed is None:
        return ()
    body, result = followed
    return _tactics(product, operands, ending.finish(body), ending, result, target, table, extra)


def favours_large(product: Product, target: Target, table: ProductHeuristic = PRODUCTS) -> bool:
    """True where the kernel, which is offered for all of a region, is to take less time than the library and a pass behind it."""
    p = product
    whole = p.n * element_nbytes(p.d) % VECTOR == 0
    fits = p.a.is_half or (p.a is DType.F32 and target.tf32)
    if target.arch != table.large_arch or not fits or p.m < table.large_rows or not whole:
        return False
    return least_us(p, target, finishes=True) < table.large_gain * table.parted_us(p)


def lost_us(product: Product, target: Target, table: ProductHeuristic = PRODUCTS) -> float:
    """Microseconds that the kernel takes more than the library for the product alone; nothing where it is as fast."""
    return max(0.0, least_us(product, target) - table.library_us(product))


def least_us(p: Product, target: Target, extra: Extra = NOTHING_ELSE, *, finishes: bool = False) -> float:
    """Microseconds that the fastest form takes; ``finishes`` as in ``large_us``."""
    large = LargeProduct(p.m, p.n, filled_k(p, extra.windows), p.a, p.d, p.d, p.lda, p.k, p.ldd)
    many, moved = target.multiprocessors, moved_nbytes(p, extra.windows)
    us = [large_us(large, f, many, finishes=finishes, moved=moved) for f in large_forms(large, many, target.shared_nbytes)]
    return min((*us, *(narrow_us(large, f, many, moved) for f in narrow_forms(large, target.shared_nbytes))), default=math.inf)


def _begins(ending: Ending, p: Product, operands: Operands, target: Target, table: ProductHeuristic) -> bool:
    """Adds what the product itself has behind a sum and a bias. False where the kernel cannot, or is not offered."""
    if not is_one_matrix(p):
        return False
    if p.m < table.large_rows or p.n < table.large_columns or p.k * element_nbytes(p.a) < table.large_k_nbytes:
        return False
    if not _in_rows(operands.a, p.lda, p.a) or not (_is_constant(p, operands) or _lies_in_columns(p, operands)):
        return False
    if (p.a is DType.F32 and not target.tf32) or (p.bias is not None and p.bias != (0, 1)) or p.ldd > MOST_PITCH:
        return False
    return ending.add(operands.c, p.d, p.c, p.beta)


def _is_constant(p: Product, operands: Operands) -> bool:
    weights = operands.constants.get(operands.b)
    return weights is not None and is_matrix(weights, *((p.n, p.k) if p.transpose_b else (p.k, p.n)))


def _lies_in_columns(p: Product, operands: Operands) -> bool:
    """Whether B is read as it lies: its columns are rows."""
    return p.transpose_b and _in_rows(operands.b, p.ldb, p.b)


def _in_rows(operand: Operand, pitch: int, dtype: DType) -> bool:
    return operand.offset % VECTOR == 0 and pitch * element_nbytes(dtype) % VECTOR == 0


def _tactics(
    product: Product,
    operands: Operands,
    finish: Finish,
    ending: Ending,
    result: DType,
    target: Target,
    table: ProductHeuristic,
    extra: Extra,
) -> tuple[Tactic, ...]:
    p, scaling = product, extra.scaling
    if len(ending.operands) > MOST_OPERANDS:
        return ()
    derives = not _lies_in_columns(p, operands)
    if derives and extra.windows is not None:
        return ()
    pitch = aligned(p.k, element_nbytes(p.b)) if derives else p.ldb
    biased = p.d if p.bias is not None else None
    constant, k = _is_constant(p, operands), filled_k(p, extra.windows)
    sizes = (p.m, p.n, k, p.a, p.d, result, p.lda, pitch, p.ldd)
    large = LargeProduct(*sizes, p.alpha, biased, constant, extra.windows)
    moved = moved_nbytes(p, extra.windows)
    if not _does(extra, large, operands, finish, ending):
        return ()

    def tactic(form: LargeForm) -> Tactic:
        def emit(work: Work) -> None:
            weights, rows = operands.b, None
            if scaling is not None and extra.rows is not None:
                weights, *behind = [work.derive(d) for d in scaling.columns()]
                known, shift = extra.rows, behind[0] if scaling.shifted else None
                rows = LargeRows(known.statistics, known.epsilon, known.centred, shift, scaling.factor, known.kept)
            elif derives:
                weights = work.derive(columns_of(operands.constants[operands.b], p, p.n, pitch))
            bias = operands.bias if biased else None
            places = operands.a, weights, operands.d, bias, ending.places
            work.add(large_launch(large, form, finish, *places, target.multiprocessors, rows=rows, summary=extra.summary))

        down, across = tiles_along(large, form)
        flops = 2 * down * form.sharing * form.tokens * across * form.features * k
        return Tactic(key_of(form), emit, Estimate(flops, moved), partial(needs_arch, table.large_arch))

    def by_turns(form: NarrowForm) -> Tactic:
        def emit(work: Work) -> None:
            weights = work.derive(columns_of(operands.constants[operands.b], p, p.n, pitch)) if derives else operands.b
            places = operands.a, weights, operands.d, operands.bias if biased else None, ending.places
            work.add(narrow_launch(large, form, finish, *places, target.multiprocessors))

        flops = 2 * -(-p.m // form.tokens) * form.tokens * -(-p.n // FEATURES) * FEATURES * k
        return Tactic(narrow_key_of(form), emit, Estimate(flops, moved), partial(needs_arch, table.large_arch))

    finishes = not leaves_by_map(large, finish)
    room, scales = target.shared_nbytes, scaling is not None
    many = target.multiprocessors
    forms = large_forms(large, many, room, scales=scales, finishes=finishes, moved=moved)[: table.large_forms]
    found = [*map(tactic, forms)]
    if extra.rows is None and extra.summary is None and is_whole(large, finish, (operands.d, *ending.places)):
        for narrow in narrow_forms(large, room):
            us = narrow_us(large, narrow, many, moved)
            ahead = forms and large_us(large, forms[0], many, finishes=finishes, moved=moved) < us
            found.insert(1 if ahead else 0, by_turns(narrow))
    return tuple(found)


def _does(extra: Extra, large: LargeProduct, operands: Operands, finish: Finish, ending: Ending) -> bool:
    """Whether the kernel can normalize the rows, and leave the statistics, that are wanted."""
    if extra.rows is not None and not (is_normalized(large) and large.constant):
        return False
    places = operands.d, *ending.places
    return extra.summary is None or has_pieces(large, finish, places)


def key_of(form: LargeForm | ByteForm) -> str:
    """What a tactic of this form is called."""
    together = f", {form.sharing} together" if form.sharing > 1 else ""
    return f"{LARGE} {form.tokens}x{form.features}, {form.stages} ahead{together}"


def narrow_key_of(form: NarrowForm) -> str:
    """The same where two warpgroups take tiles in turns."""
    return f"{LARGE} {form.tokens}x{FEATURES} by turns, {form.stages} ahead"
