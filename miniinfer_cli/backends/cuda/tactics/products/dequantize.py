"""DequantizeLinear: constants of 4 bits as they are packed for products of a few tokens, all else element by element."""

import numpy as np

from miniinfer_cli.backends.cuda.contract.site import Site, lowers
from miniinfer_cli.backends.cuda.contract.steps import NULL, Kernel, Launch, Lowered, Operand, Rewrite
from miniinfer_cli.backends.cuda.contract.tactic import Tactic
from miniinfer_cli.backends.cuda.contract.types import c_type, element_nbytes
from miniinfer_cli.backends.cuda.contract.work import Work
from miniinfer_cli.backends.cuda.tactics.pointwise.quantize import lower_quantize
from miniinfer_cli.backends.cuda.tactics.products.nibble_forms import NIBBLE_BASE, nibbles_of
from miniinfer_cli.backends.cuda.tactics.products.product_heuristic import PRODUCTS
from miniinfer_cli.backends.cuda.tactics.products.row_product_sm90 import PACKED_STEP
from miniinfer_cli.ir import DType

PACKED = "packed"
"""What the way of constants of 4 bits is called."""
_WARPS = 8  # of a block, which have 64 features by 16 of k each


@lowers("DequantizeLinear")
def lower_dequantize(site: Site) -> Lowered | Rewrite | tuple[Tactic, ...] | None:
    """Constants of 4 bits are read as products of a few tokens read them, where the target has these: then nobody needs them an
    element a byte. Else one kernel, as of QuantizeLinear.
    """
    packed = _of_nibbles(site) if site.target.arch == PRODUCTS.token_arch else None
    return lower_quantize(site) if packed is None else packed


def _of_nibbles(site: Site) -> Lowered | None:
    """A matrix of constants of 4 bits in groups that the kernel takes; None for another."""
    nibbles = nibbles_of(site.handles, site.shape(0), site.attr("axis", 1), site.attr("block_size", 0))
    dtype = site.out_dtype()
    if nibbles is None or dtype is not site.dtype(1) or dtype not in (DType.F16, DType.BF16, DType.F32):
        return None
    work = Work()
    halves = DType.BF16 if dtype is DType.F32 else dtype
    points = nibbles.points(halves)
    operands = work.derive(nibbles.packed()), work.derive(nibbles.scaled()), NULL if points is None else work.derive(points)
    across, pack = site.shape(0)[1], 16 // element_nbytes(dtype)
    defines = (
        ("MI_S", c_type(dtype)),
        ("MI_Z", c_type(halves)),
        ("MI_ZEROS", str(int(points is not None))),
        ("MI_BASE", str(NIBBLE_BASE[halves])),
        ("MI_MIDDLE", str(nibbles.middle)),
        ("MI_K_FIRST", str(int(nibbles.k_first))),
        ("MI_PACK", str(pack if across % pack == 0 else 1)),
    )
    sixteens = nibbles.steps * PACKED_STEP // 16
    sizes = nibbles.features, nibbles.k, nibbles.strips, sixteens, nibbles.groups, nibbles.group
    blocks = min(-(-nibbles.strips * sixteens // _WARPS), 16 * site.target.multiprocessors)
    arguments = (*operands, Operand.output(0), *map(np.int32, sizes))
    work.add(Launch(Kernel("dequantize_nibbles", "nibbles.cu", defines), (blocks,), (32 * _WARPS,), arguments))
    finished = work.finished(PACKED)
    assert isinstance(finished, Lowered)
    return finished
