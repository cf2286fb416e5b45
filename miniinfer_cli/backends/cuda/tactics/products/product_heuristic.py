"""When which way of a matrix product is the heuristic's favourite: the thresholds of the family in one table."""

from dataclasses import dataclass

from miniinfer_cli.backends.cuda.contract.types import element_nbytes
from miniinfer_cli.backends.cuda.tactics.products.product_records import Product, estimate_of
from miniinfer_cli.ir import DType


@dataclass(frozen=True, slots=True)
class ProductHeuristic:
    """The order is: a row or column of floats by our kernels, which read the weights as fast as memory gives them; then the
    library; then our kernels, a few rows at a time where there are few, else in tiles.

    Sizes that keep the library from its fast kernels are padded, or rows interleaved, where that is faster by the times below.

    A part is a piece of k that blocks of its own sum up, where there would be too few blocks.
    """

    few_rows: int = 8
    """Rows, or columns, that the kernels for few rows take at most."""
    most_calls: int = 64
    """Calls of the library that a batch over several axes may take."""
    transposed_calls: int = 8
    """Calls that one Transpose costs as much as: with more, an Einsum is rearranged to one product."""
    few_tokens: range = range(9, 513)
    """Rows that the kernel for few tokens is offered for: with fewer, weights are read as fast by a few rows at a time."""
    tokens_features: int = 64
    """Columns from which on it is offered, and ..."""
    tokens_k_nbytes: int = 128
    """... bytes of a row."""
    favoured_tokens: range = range(9, 209)
    """Rows of 16 bits for which that kernel is the favourite on ``token_arch``, ..."""
    favoured_tf32_tokens: range = range(33, 209)
    """... those of f32, ..."""
    favoured_features: range = range(256, 4097)
    """... and columns: alone it is slower from 2304 on, but its neighbours in a network begin while it ends ..."""
    favoured_k: range = range(256, 4097)
    """... and elements of k ..."""
    most_favoured_weights: int = 5 << 19
    """... and so many weights at most."""
    normalization_us: float = 1.5
    """Microseconds that are saved where such a kernel leaves statistics for the next one, and nothing normalizes between them."""
    kept_rows_us: float = 0.7
    """The same that are lost where the next one makes the normalized rows as well."""
    large_normalization_us: float = 5.0
    """Microseconds that statistics and normalized sums cost two products of many tokens."""
    token_arch: int = 90
    token_forms: int = 8
    """Forms of it that are offered."""
    most_tokens_nbytes: int = 226 << 10
    """Bytes of shared memory that its blocks may take."""
    most_rows: int = 8
    """Rows of 16 bits for which the kernel for a few tokens is the favourite on ``token_arch`` ..."""
    favoured_row_weights: int = 1 << 18
    """... from so many weights on."""
    rows_least: int = 64
    """Columns, and elements of k, from which on it is offered."""
    row_forms: int = 6
    """Forms of it that are offered."""
    row_step_us: float = 2.4
    """Microseconds of a step that it does besides its product."""
    large_rows: int = 1024
    """Rows from which on the kernel for many tokens is offered on ``large_arch``, and ..."""
    large_columns: int = 64
    """... columns, and ..."""
    large_k_nbytes: int = 128
    """... bytes of a row."""
    large_arch: int = 90
    large_forms: int = 4
    """Forms of it that are offered."""
    large_gain: float = 0.97
    """Of the time of the library and a pass behind it, what it takes at most where it is the favourite; times of the library are
    of its first candidate on an H200. With no pass behind it the library is as fast."""
    library_launch_us: float = 2.0
    library_flops_per_us: float = 665e6
    """Of halves, and ..."""
    library_tf32_flops_per_us: float = 370e6
    """... of f32 as TF32."""
    small_tile: int = 64
    large_tile: int = 128
    """Taken where there are as many of them as multiprocessors, and elements are below 8 bytes."""
    tile_blocks: int = 2
    """Blocks of tiles to a multiprocessor that parts are to make, where there is less than one."""
    tile_part: int = 256
    """Elements of k in a part of tiles, at least."""
    row_blocks: int = 4
    """Blocks of few rows to a multiprocessor that parts are to make ..."""
    scarce_row_blocks: int = 2
    """... where there are fewer than so many."""
    part_along_n: int = 64
    """Elements of k in a part at least, where threads lie side by side along n."""
    loads_along_k: int = 4
    """The same in loads of each thread, where they lie along k."""
    most_parts: int = 1024
    other_parts: tuple[int, ...] = (1, 2, 4, 8, 16)
    """Numbers of parts that are offered besides the favourite."""
    gain: float = 0.9
    """Of the library's time for sizes that it does not like, what other ways take at most; times as measured on an H200."""
    launch_us: float = 4.0
    misaligned_launch_us: float = 6.0
    misaligned_flops_per_us: float = 110e6
    misaligned_nbytes_per_us: float = 1.1e6
    half_flops_per_us: float = 650e6
    tf32_flops_per_us: float = 350e6
    nbytes_per_us: float = 3.5e6
    copy_launch_us: float = 2.5
    reread_nbytes_per_us: float = 3e6
    """How fast the weights are read again and again by interleaved matrices."""
    edge: float = 1.8
    """How many times as long the few columns or rows take that interleaved matrices leave."""

    def favours_tokens(self, product: Product, arch: int) -> bool:
        """True where the kernel for few tokens was measured to make networks faster than the library does."""
        p = product
        rows = self.favoured_tokens if p.a.is_half else self.favoured_tf32_tokens
        sizes = p.m in rows and p.n in self.favoured_features and p.n % 8 == 0 and p.k in self.favoured_k
        sizes = sizes and p.n * p.k <= self.most_favoured_weights
        return arch == self.token_arch and (p.a.is_half or p.a is DType.F32) and sizes

    def favours_rows(self, product: Product, arch: int) -> bool:
        """True where the kernel for a few tokens reads weights faster than a few rows at a time, or the library: those with k
        first, as was measured.
        """
        p = product
        return arch == self.token_arch and p.m <= self.most_rows and p.n * p.k >= self.favoured_row_weights and not p.transpose_b

    def misaligned_us(self, product: Product) -> float:
        """Microseconds that the library takes, about, where its sizes are no whole vectors."""
        estimate = estimate_of(product)
        return self.misaligned_launch_us + max(
            estimate.flops / self.misaligned_flops_per_us, estimate.nbytes / self.misaligned_nbytes_per_us
        )

    def aligned_us(self, product: Product) -> float:
        """The same where they are."""
        estimate = estimate_of(product)
        rate = self.half_flops_per_us if product.a.is_half else self.tf32_flops_per_us
        return self.launch_us + max(estimate.flops / rate, estimate.nbytes / self.nbytes_per_us)

    def parted_us(self, product: Product) -> float:
        """Microseconds that the library takes for many rows, and a pass over the result behind it."""
        return self.library_us(product) + self.copy_us(2 * product.m * product.n * element_nbytes(product.d))

    def library_us(self, product: Product) -> float:
        """The same with no pass behind it."""
        rate = self.library_flops_per_us if product.a.is_half else self.library_tf32_flops_per_us
        return self.library_launch_us + estimate_of(product).flops / rate

    def copy_us(self, nbytes: int) -> float:
        """Microseconds of a copy that reads and writes so many bytes."""
        return self.copy_launch_us + nbytes / self.nbytes_per_us


PRODUCTS = ProductHeuristic()
