"""Det."""

import math

import numpy as np

from miniinfer_cli.backends.cuda.contract.site import Site, lowers
from miniinfer_cli.backends.cuda.contract.steps import NULL, Argument, Kernel, Launch, Lowered, Operand, inputs, outputs
from miniinfer_cli.backends.cuda.contract.types import c_type, computed_type
from miniinfer_cli.ir import DType

_SHARED_NBYTES = 48 << 10  # a larger matrix is worked on in device memory


@lowers("Det")
def lower_det(site: Site) -> Lowered | None:
    """A block for each matrix, which eliminates in shared memory where that fits."""
    if not site.dtype().is_float:
        return None
    shape = site.shape(0)
    batch, m = math.prod(shape[:-2]), shape[-1]
    if batch == 0:
        return Lowered(())
    nbytes = m * m * (8 if site.dtype() is DType.F64 else 4)
    fits = nbytes <= _SHARED_NBYTES
    blocks = min(batch, site.target.multiprocessors * (16 if fits else 2))
    work: Argument = NULL if fits else Operand.scratch(0)
    defines = (("MI_T", c_type(site.dtype())), ("MI_C", computed_type(site.dtype())))
    block = min(256, max(32, -(-m * m // 32) * 32))
    arguments = (*inputs(0), *outputs(0), work, np.int32(batch), np.int32(m))
    launch = Launch(Kernel("determinant", "determinant.cu", defines), (blocks,), (block,), arguments, nbytes if fits else 0)
    return Lowered((launch,), () if fits else (blocks * nbytes,), tactic="elimination")
