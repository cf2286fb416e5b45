"""Sliding windows: the geometry that convolutions and poolings share, for symbolic sizes and for concrete ones.

A window visits one axis as follows. Position ``o`` of the output and tap ``t`` of the kernel read input position
``o * stride + t * dilation - begin``, where ``begin`` is the padding before the axis.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from numpy.lib.stride_tricks import as_strided

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import Array, Dim

Ints = Sequence[int]

AUTO_PADS = ("NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID")


@dataclass(frozen=True, slots=True)
class Window:
    """A window over the spatial axes: one entry per axis in each tuple. Made by ``window``, which checks the attributes.

    ``kernel`` may be symbolic in a shape rule (weights that are computed); everywhere else it is ints.
    """

    op: str
    kernel: tuple[Dim, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    begin: tuple[int, ...]
    end: tuple[int, ...]
    auto_pad: str
    ceil_mode: bool

    def output_sizes(self, sizes: Sequence[Dim]) -> tuple[Dim, ...]:
        """The output size of each spatial axis for these input sizes. Raises ModelError where the kernel does not fit."""
        return tuple(self._output_size(axis, size) for axis, size in enumerate(sizes))

    def padding(self, sizes: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The padding before and after each spatial axis for these input sizes, ``auto_pad`` resolved."""
        if not self.auto_pad.startswith("SAME"):
            return self.begin, self.end
        totals = [
            max((-(-size // stride) - 1) * stride + _span(kernel, dilation) - size, 0)
            for size, kernel, stride, dilation in zip(sizes, self._static_kernel(), self.strides, self.dilations, strict=True)
        ]
        small = tuple(total // 2 for total in totals)
        large = tuple(total - total // 2 for total in totals)
        return (small, large) if self.auto_pad == "SAME_UPPER" else (large, small)

    def _output_size(self, axis: int, size: Dim) -> Dim:
        stride, begin, end = self.strides[axis], self.begin[axis], self.end[axis]
        if self.auto_pad.startswith("SAME"):
            return (size + (stride - 1)) // stride
        span = (self.kernel[axis] - 1) * self.dilations[axis] + 1
        last_start = size + begin + end - span  # the furthest start of a window that stays inside the padded input
        if self.ceil_mode:
            # One more window may hang over the end, if it starts before the padding that follows the input. Both bounds
            # grow alike with the size, so which of the two is the smaller does not depend on it. (For VALID, ONNX's text
            # has no such window, but its shape inference and ONNX Runtime do.)
            hanging, starting = last_start + (stride - 1), size + begin - 1
            slack = hanging - starting
            last_start = hanging if isinstance(slack, int) and slack < 0 else starting
        out = last_start // stride + 1
        if isinstance(out, int) and out < 1:
            raise ModelError(
                f"{self.op}: a kernel of {self.kernel[axis]} (dilation {self.dilations[axis]}) does not fit spatial axis {axis}"
                f" of {size} padded by {begin} and {end}"
            )
        return out

    def _static_kernel(self) -> tuple[int, ...]:
        if not all(isinstance(k, int) for k in self.kernel):
            raise ValueError(f"{self.op}: the kernel {self.kernel} is not known yet")
        return self.kernel  # type: ignore[return-value]


def window(
    op: str,
    kernel: Sequence[Dim],
    *,
    strides: Sequence[int] | None = None,
    dilations: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
) -> Window:
    """A window from the attributes of an ONNX node; None stands for ONNX's default. Raises ModelError naming ``op``."""
    n = len(kernel)
    if auto_pad not in AUTO_PADS:
        raise ModelError(f"{op} auto_pad is {auto_pad!r}, expected one of {', '.join(AUTO_PADS)}")
    for name, values, least in (
        ("kernel_shape", kernel, 1),
        ("strides", strides, 1),
        ("dilations", dilations, 1),
        ("pads", pads, 0),
    ):
        expected = 2 * n if name == "pads" else n
        if values is None:
            continue
        if len(values) != expected:
            raise ModelError(f"{op} {name} {list(values)} has {len(values)} entries, expected {expected} for {n} spatial axes")
        if any(isinstance(v, int) and v < least for v in values):
            raise ModelError(f"{op} {name} {list(values)} has an entry below {least}")
    explicit = tuple(pads) if pads is not None and auto_pad == "NOTSET" else (0,) * (2 * n)
    ones = (1,) * n
    return Window(
        op,
        tuple(kernel),
        tuple(strides) if strides is not None else ones,
        tuple(dilations) if dilations is not None else ones,
        explicit[:n],
        explicit[n:],
        auto_pad,
        bool(ceil_mode),
    )


def tap_slices(offset: int, stride: int, size: int, out_size: int) -> tuple[slice, slice]:
    """Where one tap of one axis falls inside the input: the slice of output positions, and that of the input they read.

    ``offset`` is the input position that output 0 reads, which may be negative (padding). Both slices are empty when
    every output position reads padding.
    """
    first = max(-(offset // stride), 0)  # smallest o with o * stride + offset >= 0
    stop = min((size - 1 - offset) // stride + 1, out_size)
    if stop <= first:
        return slice(0, 0), slice(0, 0)
    start = first * stride + offset
    return slice(first, stop), slice(start, start + (stop - 1 - first) * stride + 1, stride)


def tap_regions(
    tap: Sequence[int],
    *,
    strides: Sequence[int],
    dilations: Sequence[int],
    begin: Sequence[int],
    sizes: Sequence[int],
    out_sizes: Sequence[int],
) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """``tap_slices`` of one tap on every spatial axis: the output region, and the input region that it reads."""
    pairs = [
        tap_slices(t * d - b, s, size, out_size)
        for t, d, b, s, size, out_size in zip(tap, dilations, begin, strides, sizes, out_sizes, strict=True)
    ]
    return tuple(p[0] for p in pairs), tuple(p[1] for p in pairs)


def window_view(x: Array, first_axis: int, kernel: Ints, strides: Ints, dilations: Ints, sizes: Ints) -> Array:
    """A read-only view of what each output position reads of the padded ``x``, nothing copied.

    The spatial axes of ``x``, ``first_axis`` and on, become those of the output positions (``sizes``) followed by those
    of the taps (``kernel``); the axes before and after stay.
    """
    stop = first_axis + len(kernel)
    spatial = x.strides[first_axis:stop]
    return as_strided(
        x,
        (*x.shape[:first_axis], *sizes, *kernel, *x.shape[stop:]),
        (
            *x.strides[:first_axis],
            *(a * s for a, s in zip(spatial, strides, strict=True)),
            *(a * d for a, d in zip(spatial, dilations, strict=True)),
            *x.strides[stop:],
        ),
        writeable=False,
    )


def _span(kernel: int, dilation: int) -> int:
    return (kernel - 1) * dilation + 1
