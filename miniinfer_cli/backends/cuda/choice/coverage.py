"""How an operation gets to the GPU: by its own lowering, as other operations, as a view, as control flow, or not at all."""

from functools import cache

from miniinfer_cli.backends.cuda.contract.site import lowered_operations
from miniinfer_cli.ops.registry import lookup


def way_of(domain: str, name: str) -> str:
    """``kernel``, ``expansion``, ``view``, ``shape``, ``control`` or ``host``."""
    if (domain, name) in _lowered():
        return "kernel"
    opdef = lookup(domain, name)
    if opdef.view:
        return "view"
    if opdef.control:
        return "control"
    if opdef.tells_shape:  # answered when the program is made
        return "shape"
    return "host" if opdef.expand is None else "expansion"


@cache
def _lowered() -> frozenset[tuple[str, str]]:
    return frozenset(lowered_operations())
