"""Identity as a copy; the other operations of one operand are in pointwise.py."""

from miniinfer_cli.backends.cuda.site import Site, lowers
from miniinfer_cli.backends.cuda.steps import Copy, Lowered, Operand
from miniinfer_cli.backends.cuda.types import element_nbytes
from miniinfer_cli.ir import DType, TensorType


@lowers("Identity")
def lower_identity(site: Site) -> Lowered | None:
    """The bytes of a tensor; sequences stay on the host."""
    kind = site.types[0]
    if not isinstance(kind, TensorType) or kind.dtype is DType.STR:
        return None
    return copied(site)


def copied(site: Site) -> Lowered:
    """The first output as the bytes of the first input."""
    count = 1
    for size in site.shape(0):
        count *= size
    nbytes = count * element_nbytes(site.dtype())
    actions = (Copy(Operand.output(0), Operand.input(0), nbytes),) if nbytes else ()
    return Lowered(actions, tactic="copy")
