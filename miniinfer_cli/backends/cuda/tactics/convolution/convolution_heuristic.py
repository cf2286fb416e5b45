"""When which way of a convolution is the heuristic's favourite: the thresholds of the family in one table."""

import math
from dataclasses import dataclass

from miniinfer_cli.backends.cuda.contract.problems import Activation
from miniinfer_cli.backends.cuda.contract.types import element_nbytes
from miniinfer_cli.backends.cuda.tactics.convolution.convolutions import Convolution, Finish, estimate_of
from miniinfer_cli.backends.cuda.tactics.products.token_forms import FEATURES


@dataclass(frozen=True, slots=True)
class ConvolutionHeuristic:
    """The order is: on ``pixel_arch`` the kernels for sm_90 where ``favours_pixels`` says so, by thresholds where pixels are few
    and by times where they are many, or ``prefers_stem`` where channels are few, else these come last; what memory bounds by our
    kernels (depthwise, and a single pixel as the product that it is); patches as rows of a product (``patches.py`` says which);
    a product with a residual by cuBLASLt; cuDNN; a product by cuBLASLt; then our kernels: products, tiles, one element a thread.

    Of a fused region the libraries, and our kernels in the first case, take as much as they can at once; a shorter part by
    them comes before all of it by our other kernels.
    """

    narrow: int = 16
    """Features of a group below which tiles are mostly empty, so that a thread makes one element."""
    outputs_of_thread: tuple[tuple[int, int], ...] = ((2, 4), (2, 2), (1, 4), (1, 1))
    """Rows and columns of outputs that a thread of the depthwise kernel may make where it holds a row of weights; else only
    the last."""
    many_outputs: tuple[int, int] = (2, 4)
    """The favourite, ..."""
    many_strided_outputs: tuple[int, int] = (2, 2)
    """... the same where windows lie apart, ..."""
    many_of_one_axis: tuple[int, int] = (1, 4)
    """... or where there is one axis, ..."""
    busy_threads: int = 128
    """... and there are so many threads to a multiprocessor all the same; else it makes the last."""
    few_tile: tuple[int, int, int, int] = (4, 8, 1, 2)
    """On ``pixel_arch``, outputs of a block of the depthwise kernel by tiles, down and across, and of its threads: the favourite
    where threads would be fewer, ..."""
    small_tile: tuple[int, int, int, int] = (8, 8, 2, 2)
    """... where windows lie apart, or rows have up to eight outputs, ..."""
    middle_tile: tuple[int, int, int, int] = (8, 16, 1, 4)
    """... up to sixteen, ..."""
    wide_tile: tuple[int, int, int, int] = (8, 16, 2, 4)
    """... or more."""
    packs_beside: int = 32
    """So many packs of channels at most are beside each other before threads go down the rows."""
    depthwise_block: int = 128
    """Threads of a block."""
    favoured_pixels: range = range(9, 3137)
    """Pixels of 16 bits for which the kernel for few tokens is the favourite on ``pixel_arch``, where a convolution has one
    tap, ..."""
    favoured_tf32_pixels: range = range(9, 3137)
    """Those of f32, ..."""
    favoured_features: range = range(64, 4097)
    """... so many features ..."""
    favoured_channels: int = 64
    """... and channels, and ..."""
    most_favoured_products: int = 930_000_000
    """... so many multiplications at most, which were measured: those of ResNet-50 with eight images; ..."""
    most_favoured_tf32_products: int = 120_000_000
    """... of f32 with one."""
    byte_pixels: range = range(1, 4097)
    """Pixels of bytes for which that kernel is offered, and ..."""
    favoured_byte_pixels: range = range(1, 3137)
    """... is the favourite, whatever else there is: other ways read and write floats, or reach half of the matrix units' rate."""
    byte_gain: float = 0.75
    """Of its time what the kernel for many pixels takes at most where it is the favourite all the same."""
    pixel_arch: int = 90
    many_gain: float = 0.865
    """Of the time of the library, what the kernel for many tokens is to take at most where it is the favourite: beside cold
    activations it takes an eighth more than its estimate. Times of the library are those of an H200, fitted to ResNet-50's
    convolutions of 64 images:"""
    library_launch_us: float = 3.0
    library_flops_per_us: float = 570e6
    library_narrow_flops_per_us: float = 380e6
    """Where there are no more features than the narrowest tile has."""
    library_tf32_flops_per_us: float = 300e6
    library_nbytes_per_us: float = 3.2e6
    library_stem_flops_per_us: float = 95e6
    """The same for fewer channels than a vector has (ResNet-50's stem), ..."""
    library_stem_tf32_flops_per_us: float = 38e6
    """... of f32, for which the library takes 398 us with 64 images, ..."""
    library_stem_nbytes_per_us: float = 1.29e6
    """... and of halves where there is little to multiply (MobileNetV2's: 58 us with 64 images)."""
    least_stem_pixels: int = 1 << 14
    """Pixels of such a one from which on that kernel may be the favourite: fewer have not been measured."""
    quick_activations: frozenset[Activation] = frozenset({Activation.RELU6})
    """Those that a depthwise convolution does as it loads in less time than a pass takes, ..."""
    quick_half_activations: frozenset[Activation] = frozenset({Activation.RELU6, Activation.SWISH})
    """... and of 16 bits, for which fewer instructions do."""
    pass_us: float = 1.5
    """What one pass over a result takes, behind a convolution, besides ..."""
    activation_share: float = 0.35
    """Of a pass, what an activation costs that the library does not have, where the next kernel does it as it loads."""
    pass_nbytes_per_us: float = 3.5e6
    """... the time of its bytes."""

    def library_us(self, conv: Convolution, *, activated: bool = False) -> float:
        """Microseconds that the library takes on an H200, about; ``activated``: with an activation behind it that it has not."""
        estimate = estimate_of(conv, Finish())
        narrow = conv.features <= FEATURES and conv.taps > 1
        rate = self.library_narrow_flops_per_us if narrow else self.library_flops_per_us
        if not conv.dtype.is_half:
            rate = min(rate, self.library_tf32_flops_per_us)
        behind = 2 * math.prod(conv.y_shape) * element_nbytes(conv.dtype) / self.pass_nbytes_per_us + self.pass_us
        us = self.library_launch_us + max(estimate.flops / rate, estimate.nbytes / self.library_nbytes_per_us)
        return us + self.activation_share * behind * activated

    def library_stem_us(self, conv: Convolution, *, strided: bool = False) -> float:
        """The same of a convolution of few channels; ``strided``: behind a copy of the image, which lies otherwise."""
        estimate, copy = estimate_of(conv, Finish()), 0.0
        if strided:
            copy = self.pass_us + 2 * math.prod(conv.x_shape) * element_nbytes(conv.dtype) / self.pass_nbytes_per_us
        if conv.dtype.is_half:
            us = max(estimate.flops / self.library_stem_flops_per_us, estimate.nbytes / self.library_stem_nbytes_per_us)
        else:
            us = estimate.flops / self.library_stem_tf32_flops_per_us
        return copy + max(self.library_us(conv), self.library_launch_us + us)


CONVOLUTIONS = ConvolutionHeuristic()
