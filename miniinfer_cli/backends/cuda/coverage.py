"""How each operation gets to the GPU: by its own lowering, as other operations, as a view, as control flow, or not at all."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from miniinfer_cli.backends.cuda import lowering  # noqa: F401  (registers the lowerings)
from miniinfer_cli.backends.cuda.site import lowered_operations
from miniinfer_cli.ops.registry import defined, lookup


@dataclass(frozen=True, slots=True)
class Coverage:
    """One operation. ``way`` is ``kernel``, ``expansion``, ``view``, ``shape``, ``control`` or ``host``."""

    domain: str
    name: str
    way: str


def coverage() -> Iterator[Coverage]:
    """Every operation that is defined, and the regions, by domain and name."""
    for domain, name in sorted(set(lowered_operations()) | {(d.domain, d.name) for d in defined()}):
        yield Coverage(domain, name, way_of(domain, name))


def way_of(domain: str, name: str) -> str:
    """See ``Coverage``."""
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
