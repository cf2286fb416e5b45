"""Regions of bytes by the kernels for sm_90: a pixel of the result is a row, their token; scales, and all that follows, within.

One tap is a product of the image as it lies. Several are windows, which a map that is im2col reads out of the image, which is
folded before where it has few channels.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from miniinfer_cli.backends.choosing import Estimate
from miniinfer_cli.backends.cuda.contract.steps import Operand
from miniinfer_cli.backends.cuda.contract.tactic import Tactic
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.cuda.contract.tensor_map import map_fault
from miniinfer_cli.backends.cuda.contract.work import Work
from miniinfer_cli.backends.cuda.tactics.convolution.convolution_heuristic import CONVOLUTIONS, ConvolutionHeuristic
from miniinfer_cli.backends.cuda.tactics.convolution.convolutions import Finish as Following
from miniinfer_cli.backends.cuda.tactics.convolution.convolutions import product_of, product_of_rows
from miniinfer_cli.backends.cuda.tactics.convolution.folding import Folding, folding_of
from miniinfer_cli.backends.cuda.tactics.convolution.integer_kernels import (
    bias_of,
    ends_of,
    estimate_of,
    is_folded,
    result_type,
    scales_of,
)
from miniinfer_cli.backends.cuda.tactics.convolution.integer_regions import PACK, IntegerRegion
from miniinfer_cli.backends.cuda.tactics.convolution.pixel_products import windows_of
from miniinfer_cli.backends.cuda.tactics.products.byte_product_sm90 import (
    ByteForm,
    ByteProduct,
    byte_forms,
    byte_launch,
    byte_us,
    ordered_rows,
    tiles_along,
)
from miniinfer_cli.backends.cuda.tactics.products.few_tokens import key_of, needs_arch
from miniinfer_cli.backends.cuda.tactics.products.large_products import key_of as large_key_of
from miniinfer_cli.backends.cuda.tactics.products.product_heuristic import PRODUCTS, ProductHeuristic
from miniinfer_cli.backends.cuda.tactics.products.product_records import Product
from miniinfer_cli.backends.cuda.tactics.products.product_sm90 import Finish, Windows, product_launch
from miniinfer_cli.backends.cuda.tactics.products.token_forms import (
    CHUNK_NBYTES,
    FEATURES,
    Form,
    TokenProduct,
    forms_of,
    grid_of,
    tokens_us,
)
from miniinfer_cli.backends.cuda.tactics.products.weight_forms import Rearranged, tiles_of
from miniinfer_cli.ir import DType


@dataclass(frozen=True, slots=True)
class _Bytes:
    """A region as a product of bytes: ``product``, of rows of ``k`` bytes, and ``windows`` where it has them, maybe those of an
    image that is folded."""

    product: Product
    k: int
    windows: Windows | None = None
    folding: Folding | None = None

    @property
    def taps(self) -> int:
        """Of the windows."""
        return 1 if self.windows is None else math.prod(self.windows.kernel)

    @property
    def rearranged(self) -> Rearranged | None:
        """What becomes of the weights first."""
        return None if self.folding is None else self.folding.rearranged

    def tokens(self, work: Work, region: IntegerRegion, multiprocessors: int) -> Operand:
        """Where the tokens lie, which are folded first where they have to be."""
        if self.folding is None:
            return region.x
        folded = work.scratch(self.folding.nbytes)
        work.add(self.folding.launch(region.x, region.x_strides, folded, region.of_x.zero, multiprocessors))
        return folded


def token_tactics(
    region: IntegerRegion, target: Target, table: ConvolutionHeuristic = CONVOLUTIONS, products: ProductHeuristic = PRODUCTS
) -> tuple[Tactic, ...]:
    """The region by the kernel for few tokens, the fastest form by the estimate first; none where it does not fit."""
    found = _product(region)
    if found is None or found.product.m not in table.byte_pixels:
        return ()
    tokens = _few(region, found)
    forms = forms_of(tokens, target.multiprocessors, min(target.shared_nbytes, products.most_tokens_nbytes))
    return tuple(_by_tokens(region, found, tokens, form, target, table) for form in forms[: products.token_forms])


def folds(region: IntegerRegion, target: Target, table: ConvolutionHeuristic = CONVOLUTIONS) -> bool:
    """Whether the image is folded first, and so may lie in any strides."""
    found = _product(region)
    return target.arch == table.pixel_arch and found is not None and found.folding is not None


def large_tactics(
    region: IntegerRegion, target: Target, table: ConvolutionHeuristic = CONVOLUTIONS, products: ProductHeuristic = PRODUCTS
) -> tuple[Tactic, ...]:
    """The region by the kernel for many tokens, the fastest form by the estimate first; none where it does not fit."""
    found = _product(region)
    if found is None or found.product.m < products.large_rows:
        return ()
    many = _many(region, found)
    forms = byte_forms(many, target.multiprocessors, target.shared_nbytes, estimate_of(region, 0).nbytes)
    return tuple(_by_many(region, found, many, form, target, table) for form in forms[: products.large_forms])


def favours_large(region: IntegerRegion, target: Target, table: ConvolutionHeuristic = CONVOLUTIONS) -> bool:
    """True where the kernel for many tokens is the favourite: wherever it fits and ``favours_tokens`` is False."""
    return target.arch == table.pixel_arch and bool(large_tactics(region, target, table))


def favours_tokens(
    region: IntegerRegion, target: Target, table: ConvolutionHeuristic = CONVOLUTIONS, products: ProductHeuristic = PRODUCTS
) -> bool:
    """True where the kernel for few tokens is the favourite: where there are few pixels, and it is to take less time than the
    one for many."""
    found = _product(region)
    if target.arch != table.pixel_arch or found is None or found.product.m not in table.favoured_byte_pixels:
        return False
    if found.product.m < products.large_rows:
        return True
    few, many = _few(region, found), _many(region, found)
    forms = forms_of(few, target.multiprocessors, min(target.shared_nbytes, products.most_tokens_nbytes))[:1]
    others = byte_forms(many, target.multiprocessors, target.shared_nbytes)[:1]
    if not forms or not others:
        return bool(forms)
    most = byte_us(many, others[0], target.multiprocessors) / table.byte_gain
    return tokens_us(few, forms[0], target.multiprocessors) < most


def _few(region: IntegerRegion, found: _Bytes) -> TokenProduct:
    p = found.product
    return TokenProduct(p.m, p.n, found.k, p.a, result_type(region), p.lda, p.n, weights=p.b)


def _many(region: IntegerRegion, found: _Bytes) -> ByteProduct:
    p, residual = found.product, None if region.of_residual is None else region.of_residual.dtype
    return ByteProduct(p.m, p.n, found.k, p.a, p.b, result_type(region), p.lda, p.k, p.n, residual, found.windows)


def _product(region: IntegerRegion) -> _Bytes | None:
    """The product that a region is, of pixels as they lie or of windows; None where it is neither.

    A map fills what lies outside of an image with zeros, so windows that reach there have integers whose zero point that is.
    """
    conv, dtype = replace(region.conv, dtype=region.of_x.dtype), region.of_x.dtype
    if conv.is_depthwise:
        return None
    plain = product_of(conv, Following())
    if plain is not None and conv.channels % PACK == 0:
        return _Bytes(_stored(plain, region), plain.k)
    rows = replace(product_of_rows(conv, Following()), a=dtype)
    folding = folding_of(conv) if conv.channels % PACK else None
    if folding is not None:
        rows_of = folding.windows
        length = math.prod(rows_of.kernel) * rows_of.x_shape[3]
        product = _stored(replace(rows, k=length, lda=length), region)
        k = math.prod(rows_of.kernel) * rows_of.chunks(1) * CHUNK_NBYTES
        return None if map_fault(rows_of.seen(Operand.input(0), dtype, 8)) else _Bytes(product, k, rows_of, folding)
    windows = windows_of(conv)
    if windows is None or ((any(conv.begin) or any(conv.end)) and region.of_x.zero):
        return None
    k = conv.taps * windows.chunks(1) * CHUNK_NBYTES
    return _Bytes(_stored(rows, region), k, windows)


def _stored(product: Product, region: IntegerRegion) -> Product:
    """With the weights as they lie."""
    n, k = product.n, product.k
    return replace(product, b=region.weights.dtype, transpose_b=not region.turned, ldb=n if region.turned else k)


def _finish(region: IntegerRegion) -> Finish:
    """Operands: scales, biases, and the residual where there is one."""
    features = region.conv.y_shape[-1]
    added = "ending.residual_zero" if region.of_residual is None else "(float)widen(x2)"
    residual = () if region.of_residual is None else (region.of_residual.dtype,)
    return Finish(
        "MI_DEVICE void body() {}",
        f"{{ y = ended(__fmaf_rn(s, x0, x1), {added}, ending); }}",
        (DType.F32, DType.F32, *residual),
        (1, 1, *(1 for _ in residual)),
        (0, 0, *(features for _ in residual)),
        ends=ends_of(region),
    )


def _by_tokens(
    region: IntegerRegion, found: _Bytes, tokens: TokenProduct, form: Form, target: Target, table: ConvolutionHeuristic
) -> Tactic:
    def emit(work: Work) -> None:
        packed = work.derive(tiles_of(region.weights, found.product, found.taps, found.rearranged))
        operands = _operands(work, region)
        places = found.tokens(work, region, target.multiprocessors), packed, Operand.output(0), operands
        work.add(product_launch(tokens, form, _finish(region), *places, windows=found.windows))

    flops = 2 * math.prod(grid_of(tokens, form)) // form.split * FEATURES * form.rows * form.tokens * found.k
    return _tactic(key_of(form), emit, _estimate(region, found, flops), table)


def _estimate(region: IntegerRegion, found: _Bytes, flops: int) -> Estimate:
    """With folded images written and read."""
    return estimate_of(region, flops) + Estimate(0, 0 if found.folding is None else 2 * found.folding.nbytes)


def _by_many(
    region: IntegerRegion, found: _Bytes, p: ByteProduct, form: ByteForm, target: Target, table: ConvolutionHeuristic
) -> Tactic:
    def emit(work: Work) -> None:
        ordered = work.derive(ordered_rows(region.weights, found.product, found.rearranged))
        numbers = _numbers(work, region)
        tokens = found.tokens(work, region, target.multiprocessors)
        places = tokens, ordered, Operand.output(0), *numbers, region.residual
        work.add(byte_launch(p, form, ends_of(region), *places, target.multiprocessors))

    down, across = tiles_along(p, form)
    flops = 2 * down * form.sharing * form.tokens * across * form.features * p.chunks * p.steps * 32
    return _tactic(large_key_of(form), emit, _estimate(region, found, flops), table)


def _operands(work: Work, region: IntegerRegion) -> list[Operand]:
    residual = [] if region.residual is None else [region.residual]
    return [*_numbers(work, region), *residual]


def _numbers(work: Work, region: IntegerRegion) -> tuple[Operand, Operand]:
    folded = is_folded(region)
    return scales_of(work, region, folded=folded), bias_of(work, region, folded=folded)


def _tactic(key: str, emit: Callable[[Work], None], estimate: Estimate, table: ConvolutionHeuristic) -> Tactic:
    return Tactic(key, emit, estimate, partial(needs_arch, table.pixel_arch))
