"""How each operation gets to the GPU: by its own lowering, as other operations, as a view, as control flow, or not at all."""

from collections.abc import Iterator
from dataclasses import dataclass

from miniinfer_cli.backends.cuda import lowering  # noqa: F401  (registers the lowerings)
from miniinfer_cli.backends.cuda.executing.control import CONTROL
from miniinfer_cli.backends.cuda.site import lowered_operations
from miniinfer_cli.backends.reference import VIEWS
from miniinfer_cli.ops.registry import defined


@dataclass(frozen=True, slots=True)
class Coverage:
    """One operation. ``way`` is ``kernel``, ``expansion``, ``view``, ``shape``, ``control`` or ``host``."""

    domain: str
    name: str
    way: str


_SHAPES = frozenset({"Shape", "Size"})  # answered when the program is made


def coverage() -> Iterator[Coverage]:
    """Every operation that is defined, and the regions, by domain and name."""
    lowered = set(lowered_operations())
    known = {(d.domain, d.name): d for d in defined()}
    for key in sorted(lowered | set(known)):
        domain, name = key
        opdef = known.get(key)
        if key in lowered:
            way = "kernel"
        elif domain == "" and name in VIEWS:
            way = "view"
        elif domain == "" and name in CONTROL:
            way = "control"
        elif domain == "" and name in _SHAPES:
            way = "shape"
        elif opdef is not None and opdef.expand is not None:
            way = "expansion"
        else:
            way = "host"
        yield Coverage(domain, name, way)
