"""Products of few tokens by constant weights on sm_90: the tactics, and what follows a sum in the same kernel."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from miniinfer_cli.backends.choosing import Estimate
from miniinfer_cli.backends.cuda.contract.steps import Derived, Operand
from miniinfer_cli.backends.cuda.contract.tactic import Tactic
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.cuda.contract.types import element_nbytes
from miniinfer_cli.backends.cuda.contract.work import Work
from miniinfer_cli.backends.cuda.tactics.products.product_endings import Ending, Following, is_one_matrix
from miniinfer_cli.backends.cuda.tactics.products.product_heuristic import PRODUCTS, ProductHeuristic
from miniinfer_cli.backends.cuda.tactics.products.product_records import Operands, Product, estimate_of
from miniinfer_cli.backends.cuda.tactics.products.product_sm90 import (
    MOST_OPERANDS,
    MOST_SCALES_NBYTES,
    PIECE,
    Rows,
    Windows,
    keeps_rows,
    pack_of,
    product_launch,
)
from miniinfer_cli.backends.cuda.tactics.products.token_forms import (
    CHUNK_NBYTES,
    FEATURES,
    Form,
    TokenProduct,
    forms_of,
    grid_of,
)
from miniinfer_cli.backends.cuda.tactics.products.weight_forms import is_matrix, tiles_of
from miniinfer_cli.ir import DType

WAY = "tokens"
"""The word that keys begin with."""


@dataclass(frozen=True, slots=True)
class Scaling:
    """How sums over tokens as they are become those over normalized ones.

    ``tiles`` makes the weights for that, times ``factor``, as the kernel for few tokens reads them; then, as rows of f32, their
    sums where tokens are ``centred``, and what the weights make of the shift where tokens are ``shifted``. ``columns``: the same
    for many tokens, where weights of a feature sum up to nothing if tokens are centred, and no sums are there.
    """

    tiles: Callable[[], tuple[Derived, ...]]
    columns: Callable[[], tuple[Derived, ...]]
    factor: float
    centred: bool
    shifted: bool

    @property
    def line(self) -> str:
        """What becomes of ``mi_sum``, with what is behind the weights as x0 and so on."""
        line = f"mi_sum = inverse * {1 / self.factor!r}f * {'(mi_sum - mean * x0)' if self.centred else 'mi_sum'}"
        return line + (f" + x{int(self.centred)};" if self.shifted else ";")


@dataclass(frozen=True, slots=True)
class Extra:
    """What the kernel does besides the product.

    ``rows`` are normalized by ``scaling``. ``summary``: where statistics of the results go. ``windows``: tokens are those of a
    convolution, whose images A is.
    """

    rows: Rows | None = None
    scaling: Scaling | None = None
    summary: Operand | None = None
    windows: Windows | None = None


NOTHING_ELSE = Extra()


def filled_k(p: Product, windows: Windows | None) -> int:
    """Elements of k that are multiplied: of windows, each tap's channels filled up to whole chunks."""
    if windows is None:
        return p.k
    nbytes = element_nbytes(p.a)
    return math.prod(windows.kernel) * windows.chunks(nbytes) * CHUNK_NBYTES // nbytes


def moved_nbytes(p: Product, windows: Windows | None) -> int:
    """Bytes of all operands and the result: images are read once, whatever their windows share."""
    images = 0 if windows is None else windows.elements - p.m * p.k
    return estimate_of(p).nbytes + images * element_nbytes(p.a)


def token_tactics(
    product: Product, operands: Operands, target: Target, table: ProductHeuristic = PRODUCTS, extra: Extra = NOTHING_ELSE
) -> tuple[Tactic, ...]:
    """The product by the kernel for few tokens, in several forms, the one that moves least first; none where it does not fit."""
    ending = Ending()
    if not _begins(ending, product, operands, extra):
        return ()
    ending.close(product)
    return _tactics(product, operands, ending, "MI_DEVICE void body() {}", product.d, target, table, extra)


def region_tactics(
    product: Product,
    operands: Operands,
    following: Following,
    target: Target,
    table: ProductHeuristic = PRODUCTS,
    extra: Extra = NOTHING_ELSE,
) -> tuple[Tactic, ...]:
    """The same with what follows the product. None where that is not pointwise, or reads what no two strides describe."""
    ending = Ending()
    followed = ending.follow(following) if _begins(ending, product, operands, extra) else None
    return () if followed is None else _tactics(product, operands, ending, *followed, target, table, extra)


def _begins(ending: Ending, p: Product, operands: Operands, extra: Extra) -> bool:
    """Adds what the product itself has behind a sum. False where the kernel cannot."""
    lies_well = operands.a.offset % 16 == 0 and p.lda * element_nbytes(p.a) % 16 == 0
    if not is_one_matrix(p) or not lies_well:
        return False
    if extra.scaling is not None:
        for number in range(extra.scaling.centred + extra.scaling.shifted):
            ending.read(Operand.derived(1 + number), DType.F32, 0, 1)
        ending.lines.append(extra.scaling.line)
    ending.scale(p.alpha)
    return ending.add(operands.c, p.d, p.c, p.beta) and ending.add(operands.bias, p.d, p.bias)


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
    sizes = table.few_tokens.start <= p.m < table.few_tokens.stop and p.n >= table.tokens_features
    sizes = sizes and p.k * element_nbytes(p.a) >= table.tokens_k_nbytes
    if weights is None or not is_matrix(weights, *stored) or not sizes or len(ending.operands) > MOST_OPERANDS:
        return ()
    if p.a is DType.F32 and not target.tf32:
        return ()
    windows, k, moved = extra.windows, filled_k(p, extra.windows), moved_nbytes(p, extra.windows)
    taps = 1 if windows is None else math.prod(windows.kernel)
    tokens = TokenProduct(p.m, p.n, k, p.a, result, p.lda, p.ldd)
    finish = ending.finish(body)
    summed = extra.summary is None or (p.n % PIECE == 0 and pack_of(tokens, finish, [operands.d, *ending.places]) * 8 == PIECE)
    rows = extra.rows
    if not summed or (rows is not None and (p.k % PIECE or not p.a.is_half)):
        return ()
    if rows is not None and rows.kept is not None and not keeps_rows(tokens):
        return ()
    room = min(target.shared_nbytes, table.most_tokens_nbytes) - (MOST_SCALES_NBYTES if extra.rows else 0)
    forms = forms_of(tokens, target.multiprocessors, room)
    if rows is not None:  # whose scales lie behind the barriers
        forms = tuple(form for form in forms if form.keeps_barriers(tokens.chunks))
    forms = forms[: table.token_forms]

    def tactic(form: Form) -> Tactic:
        def emit(work: Work) -> None:
            packed, *_ = [work.derive(d) for d in (extra.scaling.tiles() if extra.scaling else (tiles_of(weights, p, taps),))]
            places = operands.a, packed, operands.d, ending.places
            work.add(product_launch(tokens, form, finish, *places, rows=extra.rows, summary=extra.summary, windows=windows))

        flops = 2 * math.prod(grid_of(tokens, form)) // form.split * FEATURES * form.rows * form.tokens * k
        return Tactic(key_of(form), emit, Estimate(flops, moved), partial(needs_arch, table.token_arch))

    return tuple({t.key: t for t in map(tactic, reversed(forms))}.values())[::-1]


def key_of(form: Form) -> str:
    """What a tactic of this form is called."""
    shared = f", {form.sharing} together" if form.sharing > 1 else ""
    beside = f", {form.residents} beside" if form.residents > 1 else ""
    parts = f" in {form.split} parts" if form.split > 1 else ""
    return f"{WAY} {FEATURES * form.rows}x{form.tokens}, {form.stages} ahead{shared}{beside}{parts}"


def needs_arch(arch: int, target: Target) -> str:
    """What the target lacks that is not exactly of this architecture."""
    return "" if target.arch == arch else f"it is for sm_{arch} alone, and this is sm_{target.arch}"
