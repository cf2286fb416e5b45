"""CastLike and BitCast; Cast is in pointwise.py."""

from miniinfer_cli.backends.cuda.lowering.pointwise import single_launch
from miniinfer_cli.backends.cuda.lowering.unary import copied
from miniinfer_cli.backends.cuda.site import Site, lowers
from miniinfer_cli.backends.cuda.steps import Lowered, Rewrite
from miniinfer_cli.backends.cuda.types import HOST_ONLY
from miniinfer_cli.ir import Graph
from miniinfer_cli.ops.type_codes import code_of_dtype


@lowers("CastLike")
def lower_cast_like(site: Site) -> Rewrite:
    """A Cast to the second operand's type, whose contents nobody needs."""
    graph = Graph("CastLike")
    x, _ = (graph.add_input(name, kind) for name, kind in zip(("x", "like"), site.types, strict=True))
    y = graph.new_value("y", site.results[0])
    graph.add_node("Cast", (x,), (y,), attrs={**site.node.attrs, "to": code_of_dtype(site.out_dtype())})
    graph.set_outputs([y])
    return Rewrite(graph)


@lowers("BitCast")
def lower_bit_cast(site: Site) -> Lowered | None:
    """The same bytes; types under 8 bits are extended to a byte each in their own way."""
    if site.out_dtype().bits >= 8:
        return copied(site)
    return None if site.dtype() in HOST_ONLY else single_launch(site, [site.shape(0)])
