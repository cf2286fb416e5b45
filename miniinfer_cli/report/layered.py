"""Where the nodes of a graph go on a page: in layers from top to bottom, with few crossings and straight edges.

A node lies in the layer behind the last that it reads from, drawn down to those who read it. Within a layer, nodes stand in the
order of the mean place of their neighbours (barycentres), a few times down and up; then each is put as near to that mean as the
order and the widths allow, which is an isotonic regression. Edges that pass layers run through places that are kept free for them
there, up to a length; longer ones would push everything apart, and are drawn across.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

_SWEEPS = 6
_LONGEST = 12  # layers that an edge may pass in places of its own


@dataclass(frozen=True, slots=True)
class Drawing:
    """Places in units of a page: the middle of each node, and for each edge the points that it runs through, from below the node
    that is read to above the reader. ``width``, ``height`` hold all of it.
    """

    nodes: tuple[tuple[float, float], ...]
    edges: tuple[tuple[int, int, tuple[tuple[float, float], ...]], ...]
    width: float
    height: float


def drawing_of(
    reads: Sequence[Sequence[int]], *, node: tuple[float, float] = (176.0, 36.0), gap: tuple[float, float] = (24.0, 30.0)
) -> Drawing:
    """A drawing of nodes, each with the numbers of earlier nodes that it ``reads``. ``node``, ``gap``: sizes across and down."""
    edges = sorted({(source, reader) for reader, sources in enumerate(reads) for source in sources if source < reader})
    layer = _layers(len(reads), edges)
    routes: list[list[int]] = []  # of each edge: the places that it passes, as numbers behind those of the nodes
    place_layer = list(layer)
    for source, reader in edges:
        passed = range(layer[source] + 1, layer[reader])
        route = list(range(len(place_layer), len(place_layer) + len(passed))) if len(passed) <= _LONGEST else []
        place_layer += passed if route else []
        routes.append(route)
    above: list[list[int]] = [[] for _ in place_layer]
    below: list[list[int]] = [[] for _ in place_layer]
    for (source, reader), route in zip(edges, routes, strict=True):
        way = [source, *route, reader]
        if route or layer[reader] == layer[source] + 1:
            for upper, lower in pairwise(way):
                below[upper].append(lower)
                above[lower].append(upper)
    rows: list[list[int]] = [[] for _ in range(max(place_layer, default=-1) + 1)]
    for place, row in enumerate(place_layer):
        rows[row].append(place)
    widths = [node[0] if place < len(reads) else gap[0] / 2 for place in range(len(place_layer))]
    _order(rows, above, below)
    across = _across(rows, above, below, widths, gap[0])
    left = min((across[p] - widths[p] / 2 for p in range(len(place_layer))), default=0.0) - gap[0]
    right = max((across[p] + widths[p] / 2 for p in range(len(place_layer))), default=0.0) + gap[0]
    step = node[1] + gap[1]
    points = [(across[p] - left, gap[1] + node[1] / 2 + place_layer[p] * step) for p in range(len(place_layer))]
    drawn = []
    for (source, reader), route in zip(edges, routes, strict=True):
        (x0, y0), (x1, y1) = points[source], points[reader]
        drawn.append((source, reader, ((x0, y0 + node[1] / 2), *(points[p] for p in route), (x1, y1 - node[1] / 2))))
    return Drawing(tuple(points[: len(reads)]), tuple(drawn), right - left, len(rows) * step + gap[1])


def _layers(count: int, edges: Sequence[tuple[int, int]]) -> list[int]:
    """The longest path to each node; nodes that nothing holds above go down to right above the first of their readers."""
    layer = [0] * count
    readers: dict[int, list[int]] = defaultdict(list)
    has_source = set()
    for source, reader in sorted(edges, key=lambda e: (e[1], e[0])):
        layer[reader] = max(layer[reader], layer[source] + 1)
        readers[source].append(reader)
        has_source.add(reader)
    for place in reversed(range(count)):
        if place not in has_source and readers[place]:
            layer[place] = min(layer[r] for r in readers[place]) - 1
    return layer


def _order(rows: list[list[int]], above: Sequence[Sequence[int]], below: Sequence[Sequence[int]]) -> None:
    """Sorts each row by the mean place of the neighbours, down and up in turn; keeps the order with the fewest crossings."""
    at = [0] * len(above)
    for row in rows:
        for position, place in enumerate(row):
            at[place] = position
    best, fewest = [list(row) for row in rows], _crossings(rows, below, at)
    for number in range(_SWEEPS):
        if not fewest:
            break
        down = number % 2 == 0
        neighbours = above if down else below
        for row in rows if down else reversed(rows):
            means = {p: sum(at[n] for n in near) / len(near) if (near := neighbours[p]) else at[p] for p in row}
            row.sort(key=lambda p: (means[p], at[p]))
            for position, place in enumerate(row):
                at[place] = position
        found = _crossings(rows, below, at)
        if found < fewest:
            best, fewest = [list(row) for row in rows], found
    rows[:] = best


def _crossings(rows: Sequence[Sequence[int]], below: Sequence[Sequence[int]], at: Sequence[int]) -> int:
    """Pairs of edges between neighbouring rows that cross: inversions, counted by a tree of sums."""
    total = 0
    for row, under in pairwise(rows):
        sums = [0] * (len(under) + 1)
        seen = 0
        for place in row:
            ends = sorted(at[lower] for lower in below[place])
            for end in ends:
                index, passed = end + 1, 0
                while index:
                    passed += sums[index]
                    index &= index - 1
                total += seen - passed
            for end in ends:
                index = end + 1
                while index <= len(under):
                    sums[index] += 1
                    index += index & -index
                seen += 1
    return total


def _across(
    rows: Sequence[Sequence[int]],
    above: Sequence[Sequence[int]],
    below: Sequence[Sequence[int]],
    widths: Sequence[float],
    gap: float,
) -> list[float]:
    """Where each place lies from left to right: near the mean of its neighbours, in order, and apart."""
    across = [0.0] * len(widths)
    offsets = [0.0] * len(widths)
    for row in rows:
        offset = 0.0
        for before, place in zip([None, *row], row, strict=False):
            offset += 0.0 if before is None else (widths[before] + widths[place]) / 2 + gap
            offsets[place] = across[place] = offset
        for place in row:
            across[place] -= offset / 2
    for number in range(_SWEEPS):
        down = number % 2 == 0
        neighbours = above if down else below
        for row in rows if down else reversed(rows):
            wanted = [
                (sum(across[n] for n in near) / len(near) if (near := neighbours[p]) else across[p]) - offsets[p] for p in row
            ]
            for place, value in zip(row, _rising(wanted), strict=True):
                across[place] = value + offsets[place]
    return across


def _rising(values: Sequence[float]) -> list[float]:
    """The numbers nearest to these, by squares, that never fall: neighbours that would are put at their mean."""
    blocks: list[tuple[float, int]] = []  # mean, how many
    for value in values:
        mean, count = value, 1
        while blocks and blocks[-1][0] > mean:
            other, more = blocks.pop()
            mean, count = (mean * count + other * more) / (count + more), count + more
        blocks.append((mean, count))
    return [mean for mean, count in blocks for _ in range(count)]
