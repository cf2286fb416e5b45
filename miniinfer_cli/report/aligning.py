"""The nodes of two results beside each other: which of one do the work of which of the other."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

from miniinfer_cli.report.document import Node


@dataclass(frozen=True, slots=True)
class Pair:
    """Nodes of the one and of the other that do the same work; nothing on a side that has none for it."""

    left: tuple[Node, ...]
    right: tuple[Node, ...]

    @property
    def left_ms(self) -> float:
        """Of all on the one side."""
        return sum(n.median_ms for n in self.left)

    @property
    def right_ms(self) -> float:
        """Of all on the other side."""
        return sum(n.median_ms for n in self.right)


def aligned(left: Sequence[Node], right: Sequence[Node]) -> tuple[Pair, ...]:
    """All nodes of both, in the order of the one, where those of the other alone stand behind what they follow there.

    Nodes go together that compute parts of the same node of the model, by its name; what one side fuses may be several on the
    other. Where no name is in both (another export of a model), nodes of the same operations in the same order go together.
    """
    groups = _by_names(left, right)
    if not any(g.left and g.right for g in groups):
        groups = _by_operations(left, right)
    return tuple(_in_order(groups))


def _names(node: Node) -> tuple[str, ...]:
    return node.origins or (node.label,)


def _by_names(left: Sequence[Node], right: Sequence[Node]) -> list[Pair]:
    """Nodes that are linked by names, directly or through others."""
    head: dict[str, str] = {}

    def find(name: str) -> str:
        while (above := head.setdefault(name, name)) != name:
            head[name] = head[above]
            name = above
        return name

    for node in (*left, *right):
        first, *others = _names(node)
        for other in others:
            head[find(other)] = find(first)
    sides: dict[str, tuple[list[Node], list[Node]]] = defaultdict(lambda: ([], []))
    for side, nodes in enumerate((left, right)):
        for node in nodes:
            sides[find(_names(node)[0])][side].append(node)
    return _split_up(sides.values())


def _split_up(groups: Iterable[tuple[list[Node], list[Node]]]) -> list[Pair]:
    """Groups as pairs; nodes of one side that nothing of the other belongs to stand alone."""
    pairs = []
    for ours, theirs in groups:
        if ours and theirs:
            pairs.append(Pair(tuple(ours), tuple(theirs)))
        else:
            pairs += [Pair((n,), ()) for n in ours] + [Pair((), (n,)) for n in theirs]
    return pairs


def _by_operations(left: Sequence[Node], right: Sequence[Node]) -> list[Pair]:
    ours, theirs = ([n.operation for n in nodes] for nodes in (left, right))
    matcher = SequenceMatcher(a=ours, b=theirs, autojunk=False)
    groups: list[tuple[list[Node], list[Node]]] = []
    for kind, a0, a1, b0, b1 in matcher.get_opcodes():
        if kind == "equal":
            groups += [([a], [b]) for a, b in zip(left[a0:a1], right[b0:b1], strict=True)]
        else:
            groups += [([a], []) for a in left[a0:a1]] + [([], [b]) for b in right[b0:b1]]
    return _split_up(groups)


def _in_order(groups: Sequence[Pair]) -> list[Pair]:
    """By the first node of the one side; what has none, behind the pair of the nearest node before it on the other side."""
    place = {n.number: (g.left[0].number, 0) for g in groups if g.left for n in g.right}

    def key(group: Pair) -> tuple[int, int]:
        if group.left:
            return (group.left[0].number, 0)
        number = group.right[0].number
        before = max((n for n in place if n < number), default=None)
        return (-1 if before is None else place[before][0], 1 + number)

    return sorted(groups, key=key)
