"""ConstantOfShape, Range, EyeLike, OneHot."""

import math

import numpy as np

from miniinfer_cli.backends.cuda.contract.site import Site, lowers
from miniinfer_cli.backends.cuda.contract.steps import Fill, Kernel, Lowered, Operand, inputs, outputs
from miniinfer_cli.backends.cuda.contract.types import HOST_ONLY, bits_type, c_type, element_nbytes
from miniinfer_cli.backends.cuda.launching.division import dividers
from miniinfer_cli.backends.cuda.launching.grids import index_dtype, index_name, launch_over
from miniinfer_cli.backends.cuda.launching.strided_copy import UNIT, is_movable, widest_unit
from miniinfer_cli.ir import DType, numpy_dtype


@lowers("ConstantOfShape")
def lower_constant_of_shape(site: Site) -> Lowered | None:
    """One value everywhere."""
    if not is_movable(site) or site.out_dtype() is DType.STR:
        return None
    value = site.attr("value")
    count = math.prod(site.out_shape())
    element = (np.zeros(1, np.float32) if value is None else value.reshape(1)).tobytes()
    if count == 0:
        return Lowered(())
    nbytes = count * len(element)
    if len(set(element)) == 1:
        return Lowered((Fill(Operand.output(0), element[0], nbytes),), tactic="fill")
    low, high = np.frombuffer(element * (UNIT // len(element)), np.uint64)
    units = nbytes // UNIT
    index = index_dtype(units).type
    kernel = Kernel("fill", "filling.cu", (("MI_INDEX", index_name(units)),))
    return Lowered(
        (
            launch_over(
                kernel, units, (*outputs(0), low, high, index(units), np.int32(nbytes % UNIT)), site.target.multiprocessors
            ),
        ),
        tactic="fill",
    )


@lowers("Range")
def lower_range(site: Site) -> Lowered | None:
    """Evenly spaced numbers; where the operands are not known, the host makes them, as their number depends on data."""
    start, step = site.known(0), site.known(2)
    dtype = site.out_dtype()
    if not is_movable(site) or start is None or step is None:
        return None
    count = math.prod(site.out_shape())
    if count == 0:
        return Lowered(())
    integer = dtype.is_integer and dtype.value[0] == "i"
    kind = np.int64 if integer else np.float64
    exact = np.float32 if dtype.is_half else kind
    numbers = (kind(exact(x.reshape(-1)[0])) for x in (start, step))
    defines = [("MI_T", c_type(dtype)), ("MI_S", "i64" if integer else "f64"), ("MI_INDEX", index_name(count))]
    if not integer:
        defines.append(("MI_ROUNDED", ""))
    arguments = (*outputs(0), index_dtype(count).type(count), *numbers)
    return Lowered(
        (launch_over(Kernel("range", "range.cu", tuple(defines)), count, arguments, site.target.multiprocessors),),
        tactic="range",
    )


@lowers("EyeLike")
def lower_eye_like(site: Site) -> Lowered | None:
    """Ones on a diagonal."""
    shape, dtype = site.out_shape(), site.out_dtype()
    count = math.prod(shape)
    if dtype in HOST_ONLY:
        return None
    if count == 0:
        return Lowered(())
    kernel = Kernel("eye", "eye.cu", (("MI_T", bits_type(dtype)), ("MI_INDEX", index_name(count))))
    index = index_dtype(count).type
    one = np.array([1]).astype(numpy_dtype(dtype)).view(f"u{element_nbytes(dtype)}")[0]
    arguments = (*outputs(0), index(count), index(shape[1]), np.int64(site.attr("k", 0)), one)
    return Lowered((launch_over(kernel, count, arguments, site.target.multiprocessors),), tactic="eye")


@lowers("OneHot")
def lower_one_hot(site: Site) -> Lowered | None:
    """A class axis; only its size must be known, indices and values are read on the device."""
    if not is_movable(site) or site.dtype() in HOST_ONLY or site.out_dtype() is DType.STR:
        return None
    shape = site.out_shape()
    if 0 in shape:
        return Lowered(())
    axis = int(site.attr("axis", -1)) % len(shape)
    depth, inner = shape[axis], math.prod(shape[axis + 1 :])
    width = widest_unit(element_nbytes(site.out_dtype()), depth) if inner == 1 else 1
    count = math.prod(shape) // width
    sizes = (depth // width, inner)
    index = index_dtype(count)
    defines = (
        ("MI_I", c_type(site.dtype())),
        ("MI_T", bits_type(site.out_dtype())),
        ("MI_WIDTH", str(width)),
        ("MI_INDEX", index_name(count)),
    )
    arguments = (
        *inputs(0, 2), *outputs(0), index.type(count), np.int64(depth), np.array(sizes, index), dividers(sizes),
    )  # fmt: skip
    return Lowered(
        (launch_over(Kernel("one_hot", "one_hot.cu", defines), count, arguments, site.target.multiprocessors),), tactic="one hot"
    )
