"""What is computed at a site, as text: the same for sites of one work. It names neither architecture nor versions."""

from miniinfer_cli.backends.cuda.site import Site
from miniinfer_cli.backends.reference import kind_of
from miniinfer_cli.ir import Node
from miniinfer_cli.ir.text import print_graph


def signature(site: Site) -> str:
    """The operation, its attributes and body, the types of operands and results, strides where an operand is not dense, and
    whether operands may be rounded to TF32."""
    types = [str(t) for t in (*site.types, *site.results)]
    strides = [f"strides{i}={s}" for i, s in enumerate(site.strided) if s is not None]
    return " ".join([_operation(site.node), *types, *strides, *(["tf32"] if site.target.tf32 else [])])


def _operation(node: Node) -> str:
    attributes = [f"{name}={value!r}" for name, value in sorted(node.attrs.items())]
    body = [] if node.body is None else [print_graph(node.body)]
    return " ".join([kind_of(node), *attributes, *body])
