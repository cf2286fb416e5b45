"""Resize: tables of taps and weights per axis, made here, and a pass over memory for each run of neighbouring axes."""

import math
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np

from miniinfer_cli.backends.choosing import Estimate
from miniinfer_cli.backends.cuda.contract.site import Site, lowers
from miniinfer_cli.backends.cuda.contract.steps import Argument, Copy, Kernel, Launch, Lowered, Operand
from miniinfer_cli.backends.cuda.contract.tactic import Tactic, tactic_of
from miniinfer_cli.backends.cuda.contract.types import bits_type, c_type, element_nbytes
from miniinfer_cli.backends.cuda.launching.grids import index_dtype, index_name, load_width, power_of_two_from
from miniinfer_cli.backends.cuda.launching.saturation import saturates, saturation_limits
from miniinfer_cli.ir import Array, DType, numpy_dtype
from miniinfer_cli.ops.interpolation import nearest_taps, order_of_axes, weighted_taps, working_type
from miniinfer_cli.ops.resize import stretches_of


@dataclass(frozen=True, slots=True)
class ResizeHeuristic:
    """Neighbouring axes are resized in one pass; those of nearest elements always."""

    together: int = 16
    """Taps of an element up to which they are."""


RESIZE = ResizeHeuristic()


@dataclass(frozen=True, slots=True, eq=False)
class _Axis:
    """One resized axis: ``taps`` [out, count] i32, the first below 0 for an element outside; ``weights`` unless nearest."""

    number: int
    size: int
    out: int
    growth: Fraction
    taps: Array
    weights: Array | None

    @property
    def count(self) -> int:
        return int(self.taps.shape[1])


@lowers("Resize")
def lower_resize(site: Site) -> Lowered | tuple[Tactic, ...] | None:
    """By nearest elements, or by sums of weighted taps in f32 (f64 for f64 and wide integers)."""
    operands = site.known(1), site.known(2), site.known(3)
    if any(site.has(i) and known is None and site.shape(i) != (0,) for i, known in enumerate(operands, 1)):
        return None
    nearest = site.attr("mode", "nearest") == "nearest"
    dtype = site.dtype()
    if dtype is DType.STR or not (nearest or dtype.is_float or dtype.is_integer):
        return None
    shape = list(site.shape(0))
    if math.prod(site.out_shape()) == 0:
        return Lowered(())
    axes = _resized_axes(site, operands, nearest)
    if not axes:
        nbytes = math.prod(shape) * element_nbytes(dtype)
        return Lowered((Copy(Operand.output(0), Operand.input(0), nbytes),), tactic="copy")
    return resize_tactics(site, axes, nearest)


def resize_tactics(site: Site, axes: list[_Axis], nearest: bool, table: ResizeHeuristic = RESIZE) -> tuple[Tactic, ...]:
    """The ways of grouping axes into passes, the heuristic's favourite first; then each alone, and as many together as may be."""
    shape = list(site.shape(0))
    favourite = _groups(axes, shape, None if nearest else table.together)
    by_key: dict[str, Tactic] = {}
    for groups in (favourite, _groups(axes, shape, 0), _groups(axes, shape, None)):
        key = "resize in one pass" if len(groups) == 1 else f"resize in {len(groups)} passes"
        by_key.setdefault(key, tactic_of(key, partial(_in_passes, site, groups, nearest), _estimate(site, groups)))
    return tuple(by_key.values())


def _in_passes(site: Site, groups: list[list[_Axis]], nearest: bool) -> Lowered:
    passes, shape = _Passes(site, nearest), list(site.shape(0))
    for group in groups:
        passes.add(group, shape, last=group is groups[-1])
        for axis in group:
            shape[axis.number] = axis.out
    return Lowered(tuple(passes.launches), tuple(passes.scratch), tables=tuple(passes.tables))


def _estimate(site: Site, groups: list[list[_Axis]]) -> Estimate:
    """A multiplication and an addition for each tap; what lies between passes is written and read."""
    shape, item = list(site.shape(0)), element_nbytes(site.dtype())
    estimate = Estimate(0, 0)
    for group in groups:
        before = math.prod(shape)
        for axis in group:
            shape[axis.number] = axis.out
        taps = math.prod(a.count for a in group)
        estimate += Estimate(2 * taps * math.prod(shape), (before + math.prod(shape)) * item)
    return estimate


def _resized_axes(site: Site, operands: tuple[Array | None, Array | None, Array | None], nearest: bool) -> list[_Axis]:
    """The axes that change, in order."""
    shape = site.shape(0)
    mode = site.attr("coordinate_transformation_mode", "half_pixel")
    policy = site.attr("keep_aspect_ratio_policy", "stretch")
    named = site.attr("axes")
    chosen = [axis % len(shape) for axis in (range(len(shape)) if named is None else named)]
    stretches = stretches_of(shape, *operands, chosen, mode, policy)
    axes = []
    for number in sorted(chosen):
        s = stretches[number]
        places = s.coordinates(mode)
        if s.out == s.size and np.array_equal(places, np.arange(s.size)):
            continue
        weights = None
        if nearest:
            taps = nearest_taps(places, s.size, site.attr("nearest_mode", "round_prefer_floor"))[:, None]
        else:
            taps, weights = weighted_taps(
                places,
                s.size,
                float(s.scale),
                mode=site.attr("mode"),
                antialias=bool(site.attr("antialias", 0)),
                cubic_coeff_a=site.attr("cubic_coeff_a", -0.75),
                exclude_outside=bool(site.attr("exclude_outside", 0)),
            )
            used = [k for k in range(taps.shape[1]) if np.any(weights[:, k])] or [0]
            taps, weights = taps[:, used], weights[:, used]
        taps = taps.astype(np.int32)
        if mode == "tf_crop_and_resize":
            taps[(places < 0) | (places > s.size - 1)] = -1
        axes.append(_Axis(number, s.size, s.out, Fraction(s.out, s.size), taps, weights))
    return axes


def _groups(axes: list[_Axis], shape: list[int], together: int | None) -> list[list[_Axis]]:
    """Axes that are resized together, those that shrink first: neighbours with so many taps at most (or any), three at most."""
    groups: list[list[_Axis]] = []
    for axis in axes:
        group = groups[-1] if groups else []
        if (
            0 < len(group) < 3
            and math.prod(shape[group[-1].number + 1 : axis.number]) == 1
            and (together is None or math.prod(a.count for a in (*group, axis)) <= together)
        ):
            group.append(axis)
        else:
            groups.append([axis])
    order = order_of_axes(range(len(groups)), [float(math.prod(a.growth for a in g)) for g in groups])
    return [groups[i] for i in order]


class _Passes:
    """Launches one after the other, through scratch buffers in the type that is interpolated in."""

    def __init__(self, site: Site, nearest: bool) -> None:
        self.site = site
        self.nearest = nearest
        self.launches: list[Launch[Operand]] = []
        self.scratch: list[int] = []
        self.tables: list[Array] = []
        self.source = Operand.input(0)
        self.dtype = site.dtype()
        self.working = DType.F64 if working_type(np.empty(0, numpy_dtype(site.dtype()))) is np.float64 else DType.F32

    def add(self, group: list[_Axis], shape: list[int], *, last: bool) -> None:
        """Resizes the axes of ``group`` of what has come out so far, of ``shape``."""
        first, behind = group[0].number, group[-1].number + 1
        outer, inner = math.prod(shape[:first]), math.prod(shape[behind:])
        padding = [_Axis(-1, 1, 1, Fraction(1), np.zeros((1, 1), np.int32), None if self.nearest else np.ones((1, 1)))]
        triple = [*padding * (3 - len(group)), *group]
        sizes, outs = [a.size for a in triple], [a.out for a in triple]
        dtype = self.site.dtype() if last or self.nearest else self.working
        total = outer * math.prod(outs) * inner
        if last:
            target = Operand.output(0)
        else:
            self.scratch.append(total * element_nbytes(dtype))
            target = Operand.scratch(len(self.scratch) - 1)
        along = inner == 1
        lanes = load_width(
            outs[2] if along else inner, max(element_nbytes(self.dtype), element_nbytes(dtype)), 16 if self.nearest else 8
        )
        rows, units = outer * outs[0] * outs[1], outs[2] * inner // lanes
        largest = max(total, outer * math.prod(sizes) * inner)
        index = index_dtype(largest)
        head: tuple[Argument, ...] = (self.source, target, np.array([outer, *sizes, inner, *outs], index))
        taps = [self._table(a.taps) for a in triple]
        defines = (("MI_V", str(lanes)), ("MI_ALONG", str(int(along))), ("MI_INDEX", index_name(largest)))
        tail = (index.type(units), index.type(rows))
        if self.nearest:
            kernel = Kernel(
                "resize_nearest", "resize.cu", (("MI_NEAREST", "1"), ("MI_T", bits_type(self.site.dtype())), *defines)
            )
            arguments: tuple[Argument, ...] = (*head, *taps, self._value_bits(), *tail)
        else:
            working = numpy_dtype(self.working).type
            weights = [self._table(np.asarray(a.weights, working)) for a in triple]
            counts = [np.int32(a.count) for a in triple]
            limits = map(working, saturation_limits(dtype))
            value = working(self.site.attr("extrapolation_value", 0.0))
            kernel = Kernel(
                "resize_weighted",
                "resize.cu",
                (
                    ("MI_NEAREST", "0"), ("MI_T", c_type(self.dtype)), ("MI_S", c_type(dtype)),
                    ("MI_C", c_type(self.working)), ("MI_WHOLE", str(int(saturates(dtype)))), *defines,
                    *((f"MI_TAPS_{n}", str(a.count if a.count in (1, 2, 4) else 0)) for n, a in zip("ABC", triple, strict=True)),
                ),
            )  # fmt: skip
            arguments = (*head, *taps, *weights, *counts, value, *limits, *tail)
        wide = min(256, power_of_two_from(units))
        tall = 256 // wide
        columns = -(-units // wide)
        most = max(1, self.site.target.multiprocessors * 64 // columns)
        grid = (columns, min(-(-rows // tall), most, 65535))
        self.launches.append(Launch(kernel, grid, (wide, tall), arguments))
        self.source, self.dtype = target, dtype

    def _table(self, array: Array) -> Operand:
        self.tables.append(np.ascontiguousarray(array))
        return Operand.table(len(self.tables) - 1)

    def _value_bits(self) -> "np.generic[Any] | Array":
        dtype = self.site.dtype()
        value = np.asarray(self.site.attr("extrapolation_value", 0.0)).astype(numpy_dtype(dtype)).reshape(1)
        if element_nbytes(dtype) == 16:
            return value.view(np.uint64)
        return value.view(f"u{element_nbytes(dtype)}")[0]  # type: ignore[no-any-return]
