"""Shape of a computed tensor -> its dimensions computed from the shapes of the graph's inputs.

Inference knows each dimension as an expression of named sizes (``2*floor(height/2)``), and the inputs have those names. A
tensor that is read for its shape alone would otherwise be kept, transposed, or kept from fusing for nothing.
"""

from miniinfer_cli.ir import Dim, Graph, Node, Value
from miniinfer_cli.ir.dim_atoms import Atom, FloorDiv, PositivePart
from miniinfer_cli.ir.dims import Sym
from miniinfer_cli.ops import insert
from miniinfer_cli.passes.cancel_transposes import permutation
from miniinfer_cli.passes.operands import dims


def trace_shapes(graph: Graph) -> int:
    """Gives the number of Shapes that no longer read what they read."""
    count = 0
    for node in graph.nodes:
        value = node.inputs[0] if node.is_op("Shape") else None
        if value is None or value.producer is None:
            continue
        shape = _from_inputs(graph, node, value) or _past_transpose(graph, node, value)
        if shape is not None:
            graph.replace_node(node, [shape])
            count += 1
    return count


def _from_inputs(graph: Graph, node: Node, value: Value) -> Value | None:
    places = _places(graph)
    shape = dims(value)
    if shape is None:
        return None
    wanted = shape[node.attrs.get("start", 0) : node.attrs.get("end", len(shape))]
    if not wanted or not all(_is_traceable(d, places) for d in wanted):
        return None
    vectors = [_vector(graph, node, d, places) for d in wanted]
    name = node.output.name
    return insert(graph, "Concat", *vectors, before=node, out=name, axis=0) if len(vectors) > 1 else vectors[0]


def _past_transpose(graph: Graph, node: Node, value: Value) -> Value | None:
    """The same of the tensor before a Transpose, for sizes that no input has."""
    producer = value.producer
    perm = permutation(producer) if producer is not None and producer.is_op("Transpose") else None
    if producer is None or perm is None:
        return None
    order = perm[node.attrs.get("start", 0) : node.attrs.get("end", len(perm))]
    source = insert(graph, "Shape", producer.inputs[0], before=node, out=f"{node.output.name}_before")
    return insert(graph, "Gather", source, graph.add_constant(order, "order"), before=node, out=node.output.name)


def _places(graph: Graph) -> dict[str, tuple[Value, int]]:
    """Where each named size can be read: an input and its axis."""
    places: dict[str, tuple[Value, int]] = {}
    for value in graph.inputs:
        for axis, dim in enumerate(dims(value) or ()):
            if isinstance(dim, Sym) and len(dim.terms) == 1:
                (monomial, factor) = dim.terms[0]
                if factor == 1 and len(monomial) == 1 and isinstance(monomial[0], str):
                    places.setdefault(monomial[0], (value, axis))
    return places


def _is_traceable(dim: Dim, places: dict[str, tuple[Value, int]]) -> bool:
    if isinstance(dim, int):
        return True
    return all(_is_traceable_atom(atom, places) for monomial, _ in dim.terms for atom in monomial)


def _is_traceable_atom(atom: Atom, places: dict[str, tuple[Value, int]]) -> bool:
    if isinstance(atom, FloorDiv):
        return _is_traceable(atom.dividend, places) and _is_traceable(atom.divisor, places)
    return _is_traceable(atom.dim, places) if isinstance(atom, PositivePart) else atom in places


def _vector(graph: Graph, before: Node, dim: Dim, places: dict[str, tuple[Value, int]]) -> Value:
    """``dim`` as a tensor i64[1], computed from shapes of inputs."""
    if isinstance(dim, int):
        return graph.add_constant([dim], "size")
    total: Value | None = None
    for monomial, factor in dim.terms:
        term = graph.add_constant([factor], "factor") if factor != 1 or not monomial else None
        for atom in monomial:
            size = _atom(graph, before, atom, places)
            term = size if term is None else insert(graph, "Mul", term, size, before=before, out="size")
        if term is not None:
            total = term if total is None else insert(graph, "Add", total, term, before=before, out="size")
    if total is None:
        raise ValueError(f"the dimension {dim} has no terms")
    return total


def _atom(graph: Graph, before: Node, atom: Atom, places: dict[str, tuple[Value, int]]) -> Value:
    if isinstance(atom, str):
        value, axis = places[atom]
        return insert(graph, "Shape", value, before=before, out=atom, start=axis, end=axis + 1)
    if isinstance(atom, PositivePart):
        zero = graph.add_constant([0], "size")
        return insert(graph, "Max", _vector(graph, before, atom.dim, places), zero, before=before, out="size")
    dividend = _vector(graph, before, atom.dividend, places)
    divisor = _vector(graph, before, atom.divisor, places)
    # Div rounds toward zero; without the rest, which has the sign of the divisor, it rounds down.
    rest = insert(graph, "Mod", dividend, divisor, before=before, out="size")
    whole = insert(graph, "Sub", dividend, rest, before=before, out="size")
    return insert(graph, "Div", whole, divisor, before=before, out="size")
