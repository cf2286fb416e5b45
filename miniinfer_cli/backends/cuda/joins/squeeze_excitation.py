"""All of squeeze-and-excitation: means of an image's pixels, two products of these, and the image times their gates."""

import math
from dataclasses import dataclass
from functools import partial

from miniinfer_cli.backends.cuda.contract.join import Join, joins, label_of
from miniinfer_cli.backends.cuda.contract.site import static_shape
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.cuda.joins.excitation import PixelProduct, is_activation, pixel_product
from miniinfer_cli.backends.cuda.tactics.convolution.excitation_heuristic import EXCITATIONS
from miniinfer_cli.backends.cuda.tactics.convolution.squeeze_excitation_launch import SqueezeExcitation
from miniinfer_cli.backends.cuda.tactics.products.few_tokens import needs_arch
from miniinfer_cli.backends.reference import static_tensor
from miniinfer_cli.ir import Graph, Node, Value
from miniinfer_cli.ops import OURS
from miniinfer_cli.ops.excitation import GATES
from miniinfer_cli.ops.inference import Types

KEY = "squeeze_excitation"


@joins(KEY)
def find_squeeze_excitations(graph: Graph, types: Types, target: Target) -> list[Join]:
    """Every image of which the means are squeezed and excited to its own gates, and nothing else."""
    found = []
    for pool in graph:
        if (pool.domain, pool.op) != (OURS, "GlobalAveragePoolNHWC"):
            continue
        excited = _excited(pool, types)
        join = None if excited is None else _join(excited, types, target)
        if join is not None:
            found.append(join)
    return found


@dataclass(frozen=True, slots=True)
class _Excited:
    """The nodes, the image, and both products."""

    nodes: tuple[Node, Node, Node, Node]
    x: Value
    first: PixelProduct
    second: PixelProduct


def _excited(pool: Node, types: Types) -> _Excited | None:
    """What begins with a pool; None where something else follows it."""
    x, nodes = pool.inputs[0], [pool]
    for _ in range(3):
        if len(nodes[-1].output.users) != 1:
            return None
        nodes.append(nodes[-1].output.users[0])
    _, squeezing, exciting, scale = nodes
    first, second = pixel_product(squeezing, types), pixel_product(exciting, types)
    if x is None or first is None or second is None or first.x is not pool.output or second.x is not squeezing.output:
        return None
    if not is_activation(first.then) or not second.then.is_op(*GATES) or not scale.is_op("Mul"):
        return None
    if scale.inputs not in ((x, exciting.output), (exciting.output, x)):
        return None
    return _Excited((pool, squeezing, exciting, scale), x, first, second)


def _join(excited: _Excited, types: Types, target: Target) -> Join | None:
    nodes, x, first, second = excited.nodes, excited.x, excited.first, excited.second
    image, squeeze, excite = (static_tensor(types.get(v, v.type)) for v in (x, first.weights, second.weights))
    weights = [v for v in (first.weights, second.weights, first.bias, second.bias) if v is not None]
    if image is None or squeeze is None or excite is None or any(v.constant is None for v in weights):
        return None
    images, *middle, channels = static_shape(image)
    if static_shape(excite)[0] != channels:
        return None
    sizes = SqueezeExcitation(image.dtype, images, math.prod(middle), channels, static_shape(squeeze)[0])
    if not sizes.cuts(target):
        return None
    graph, scale = Graph(KEY), nodes[-1]
    inner: dict[Value, Value] = {}
    made = {n.output for n in nodes}
    for value in (v for n in nodes for v in n.inputs if v is not None and v not in made):
        if value not in inner:
            inner[value] = graph.add_input(value.name, types.get(value, value.type))
    y = graph.new_value(scale.output.name, types[scale.output])
    limits = {k: v for k, v in second.then.attrs.items() if k in ("alpha", "beta")}
    attrs = {"activation": first.then.op, "gate": second.then.op, **limits}
    operands = [x, first.weights, second.weights, first.bias, second.bias]
    read = [None if v is None else inner[v] for v in operands]
    graph.add_node("SqueezeExcitation", read, [y], domain=OURS, name=label_of(nodes), attrs=attrs)
    graph.set_outputs([y])
    needs = partial(needs_arch, EXCITATIONS.whole_arch)
    return Join(KEY, nodes, graph, sizes.estimate, sizes.gain_us(), needs)
