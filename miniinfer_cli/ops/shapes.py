"""What shape rules share: broadcasting, axes, and checks whose messages show got and expected."""

from collections.abc import Sequence

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import Dim, Shape, TensorType
from miniinfer_cli.ir.dims import is_natural, minimum
from miniinfer_cli.ops.inference import UNKNOWN


def broadcast(op: str, *types: TensorType | None) -> Shape | None:
    """The numpy-style broadcast of the operands' shapes; None when one rank is unknown. Absent operands do not count."""
    shapes = [t.shape for t in types if t is not None]
    if any(s is None for s in shapes):
        return None
    known = [s for s in shapes if s is not None]
    rank = max((len(s) for s in known), default=0)
    out: list[Dim] = []
    for axis in range(-rank, 0):
        dim: Dim = 1
        for s in known:
            if len(s) >= -axis:
                dim = _broadcast_dim(op, dim, s[axis], known)
        out.append(dim)
    return tuple(out)


def normal_axis(op: str, axis: int, x: TensorType) -> int:
    """``axis`` as a non-negative index into the shape of ``x``, whose rank is known. Raises ModelError when outside."""
    rank = x.rank
    if rank is None:
        raise ValueError(f"{op}: the rank of {x} is not known")
    if not -max(rank, 1) <= axis < max(rank, 1):
        raise ModelError(f"{op} axis {axis} is outside [{-rank}, {rank - 1}] for input {x}")
    return axis % rank if rank else 0


def normal_axes(op: str, axes: Sequence[int], x: TensorType) -> tuple[int, ...]:
    """Each axis normalised; raises ModelError when one is outside or given twice."""
    normal = tuple(normal_axis(op, int(a), x) for a in axes)
    if len(set(normal)) != len(normal):
        raise ModelError(f"{op} axes {list(axes)} name an axis twice for input {x}")
    return normal


def same_dim(op: str, what: str, a: Dim, b: Dim) -> Dim:
    """The dimension that ``a`` and ``b`` must both be. Raises ModelError when they are two different ints."""
    if isinstance(a, int) and isinstance(b, int) and a != b:
        raise ModelError(f"{op}: {what}: {a} is not {b}")
    return b if a == UNKNOWN or (isinstance(b, int) and not isinstance(a, int)) else a


def expect_rank(op: str, x: TensorType, *ranks: int) -> None:
    """Raises ModelError unless the rank of ``x`` is unknown or one of ``ranks``."""
    if x.rank is not None and x.rank not in ranks:
        raise ModelError(f"{op} expects an input of rank {' or '.join(map(str, ranks))}, got {x}")


def _broadcast_dim(op: str, a: Dim, b: Dim, shapes: Sequence[Shape]) -> Dim:
    if a == b or b == 1:
        return a
    if a == 1:
        return b
    if isinstance(a, int) and isinstance(b, int):
        texts = " and ".join("[" + ",".join(map(str, s)) + "]" for s in shapes)
        raise ModelError(f"{op}: shapes {texts} do not broadcast ({a} against {b})")
    # One is symbolic: a symbolic size that is not 1 at run time must equal the other's.
    if isinstance(a, int) or isinstance(b, int):
        return a if isinstance(a, int) else b
    return next((x for x, y in ((a, b), (b, a)) if _takes_in(x, y)), UNKNOWN)


def _takes_in(a: Dim, b: Dim) -> bool:
    """True when axes of ``a`` and ``b`` that broadcast give ``a``, as ``seq`` and the ``min(seq,1024)`` rows of a table do:
    ``b`` is never above ``a``, and not 0 where ``a`` is 1.
    """
    return is_natural(a - b) and is_natural(b - minimum(a, 1))
