"""What is computed at a site, as text: the same for sites of one work. It names neither architecture, versions nor values.

    FusedMatMul {MatMul(0,1) Add(3,2)} f16[128,768] f16[768,768] f16[768] -> f16[128,768] tf32

Sites whose signatures differ in the rows of what they read and make alone differ in M alone (``m_ratio``).
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from miniinfer_cli.backends.cuda.contract.site import Site
from miniinfer_cli.backends.reference import kind_of
from miniinfer_cli.ir import Constant, Graph, Node, Type, Value
from miniinfer_cli.ir.parts import copy_node, leaving, reading
from miniinfer_cli.ir.text import print_graph

# From a word's first letter on, so that a text takes time in proportion to its length.
_TYPE = re.compile(r"\b([a-z]\w*)\[((?:[0-9]{1,18}(?:,[0-9]{1,18})*)?)\]")
_ARROW = " -> "
_JOINED = "joined"
_MOST_ITEMS = 64  # of an attribute or constant that are spelt out


def signature(site: Site) -> str:
    """The operation, its attributes and body, the types of operands and results, strides where an operand is not dense, and
    whether operands may be rounded to TF32.

    An operand that is a constant has a ``*`` behind its type: what is known when a program is made may be computed in other ways.
    """
    operands = _operands(site.types, site.handles)
    strides = [f"strides{i}={s}" for i, s in enumerate(site.strided) if s is not None]
    return _text([_operation(site.node), *operands, *strides], site.results, site.target.tf32)


def joined_signature(graph: Graph, nodes: Sequence[Node], types: Mapping[Value, Type | None], tf32: bool) -> str:
    """The same of several nodes of a graph: their operations, and the types of what they read and what leaves them."""
    part = Graph("join")
    read = reading(nodes)
    inner: dict[Value, Value] = {v: part.add_input(v.name, types.get(v, v.type)) for v in read}
    for node in nodes:
        copy_node(part, node, inner)
    ends = leaving(graph, nodes)
    part.set_outputs([inner[v] for v in ends])
    operands = _operands([types.get(v, v.type) for v in read], [v.constant for v in read])
    return _text([f"{_JOINED} {{{_body(part)}}}", *operands], [types[v] for v in ends], tf32)


def _operands(types: Sequence[Type | None], handles: Sequence[Constant | None]) -> list[str]:
    return [f"{t}*" if h is not None else str(t) for t, h in zip(types, handles, strict=True)]


def _text(said: Sequence[str], results: Sequence[Type | None], tf32: bool) -> str:
    return _ARROW.join([" ".join(said), " ".join([*map(str, results), *(["tf32"] if tf32 else [])])])


def m_ratio(wanted: str, known: str) -> float | None:
    """Rows of ``wanted`` by those of ``known`` where the two signatures differ in M alone; None where they do not.

    That is: the first operand and every result are larger by the same factor along one axis that is not the last, others are
    equal or larger by that factor as well, and constants are equal.
    """
    (skeleton, operands, results), (other, known_operands, known_results) = _taken_apart(wanted), _taken_apart(known)
    if skeleton != other or not operands or not results:
        return None
    first = _scale(operands[0], known_operands[0])
    if first is None or first == 1 or any(_scale(a, b) != first for a, b in zip(results, known_results, strict=True)):
        return None
    for a, b in zip(operands[1:], known_operands[1:], strict=True):
        if _scale(a, b) not in (1, first):
            return None
    return first


def family(signature: str) -> str:
    """What signatures that may differ in M alone have in common."""
    return _taken_apart(signature)[0]


_Shape = tuple[int, ...]


@lru_cache(maxsize=4096)
def _taken_apart(signature: str) -> tuple[str, tuple[_Shape, ...], tuple[_Shape, ...]]:
    """The text without sizes of what is no constant; the shapes of the operands, and of the results."""
    shapes: list[_Shape] = []

    def hide(match: "re.Match[str]") -> str:
        if match.string[match.end() : match.end() + 1] == "*":
            return match[0]
        shapes.append(tuple(map(int, match[2].split(","))) if match[2] else ())
        return f"{match[1]}[{len(shapes[-1])}]"

    operands, arrow, results = signature.rpartition(_ARROW)
    start = operands.rfind("}") + 1  # types in attributes and bodies are no operands
    skeleton = operands[:start] + _TYPE.sub(hide, operands[start:])
    split = len(shapes)
    skeleton += arrow + _TYPE.sub(hide, results)
    return skeleton, tuple(shapes[:split]), tuple(shapes[split:])


def _scale(wanted: _Shape, known: _Shape) -> float | None:
    """By how much the one is longer than the other along its only axis that differs; 1 for equals, None for anything else."""
    if len(wanted) != len(known):
        return None
    axes = [i for i, (a, b) in enumerate(zip(wanted, known, strict=True)) if a != b]
    if not axes:
        return 1.0
    (axis, *others) = axes
    if others or axis == len(wanted) - 1 or known[axis] == 0:
        return None
    return wanted[axis] / known[axis]


def _operation(node: Node) -> str:
    said = [kind_of(node), *_attributes(node.attrs)]
    if node.body is not None:
        said.append(f"{{{_body(node.body)}}}")
    said += [f"{name} {print_graph(graph)}" for name, graph in sorted(node.graphs.items())]
    return " ".join(said)


def _attributes(attrs: Mapping[str, Any]) -> list[str]:
    return [f"{name}={_said(value)}" for name, value in sorted(attrs.items())]


def _body(body: Graph) -> str:
    """The nodes of a body over the numbers of its values: names do not count."""
    numbers: dict[Value, str] = {v: str(i) for i, v in enumerate(body.inputs)}

    def read(value: Value | None) -> str:
        if value is None:
            return "-"
        if value not in numbers and value.constant is not None:
            constant = value.constant
            contents = constant.array() if constant.size <= _MOST_ITEMS else None
            numbers[value] = f"{constant.dtype}{list(constant.shape)}" + ("" if contents is None else f"={_said(contents)}")
        return numbers[value]

    said = []
    for node in body:
        said.append(f"{_operation(node)}({','.join(map(read, node.inputs))})")
        for value in node.outputs:
            numbers[value] = str(len(numbers))
    return " ".join([*said, f"return {','.join(map(read, body.outputs))}"])


def _said(value: Any) -> str:
    if isinstance(value, np.ndarray):
        items = value.reshape(-1).tolist()
        shown = items if len(items) <= _MOST_ITEMS else hashlib.sha256(value.tobytes()).hexdigest()[:16]
        return f"{value.dtype}{list(value.shape)}:{shown}"
    return repr(value)
