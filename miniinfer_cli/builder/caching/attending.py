"""Attention over a cache: which keys its mask shows, as numbers, and the node with the length in the place of the mask."""

from collections.abc import Mapping, Sequence

import numpy as np

from miniinfer_cli.builder.caching.lengths import Probed
from miniinfer_cli.builder.caching.probing import Point
from miniinfer_cli.errors import MiniinferError, ModelError
from miniinfer_cli.ir import Array, Graph, Node, Value
from miniinfer_cli.ops.attention import visible_keys

_HIDDEN = -9e3
"""What is added to a score that is not to count, at most: exporters add -1e4, or the least number of a type."""
_MASK, _PAST_KEY, _PAST_VALUE, _SEEN = 3, 4, 5, 6


def attend_by_length(graph: Graph, node: Node, total: Value, probed: Probed) -> None:
    """Has an Attention whose keys and values are caches see each new token's own row and those in front of it, by their length.

    Raises ModelError where its mask shows other keys, or is more than a mask.
    """
    windows = {_window(node, point, _visible(node, point, found)) for point, found in probed}
    sizes = {w for w in windows if w >= 0}
    if len(sizes) > 1:
        raise _refused(node, "shows windows of different sizes")
    for point, found in probed:  # with the one window at every size
        if not np.array_equal(_visible(node, point, found), _expected(point, *(sizes or {-1}))):
            raise _refused(node, "shows other keys than those in front of each token")
    graph.set_inputs(node, [*node.inputs[:_MASK], None, None, None, total])
    graph.set_attribute(node, "is_causal", 1)
    graph.set_attribute(node, "left_window_size", next(iter(sizes), -1))
    graph.set_attribute(node, "right_window_size", -1)
    graph.set_attribute(node, "nan_rows", "keep")  # each token sees itself: no row is empty


def _expected(point: Point, window: int) -> Array:
    position, key = np.arange(point.new)[:, None] + point.held, np.arange(point.held + point.new)
    seen = key <= position
    return seen if window < 0 else seen & (key >= position - window)


def _window(node: Node, point: Point, visible: Array) -> int:
    """The keys in front of its own that the last token sees where these are fewer than there are; -1 where it sees all."""
    seen = np.flatnonzero(visible[-1])
    if not len(seen) or seen[-1] != point.held + point.new - 1:
        raise _refused(node, "hides a token from itself")
    front = len(seen) - 1
    return -1 if front == point.held + point.new - 1 else front


def _visible(node: Node, point: Point, found: Mapping[Value, Array]) -> Array:
    """``[new, held + new]``: the keys that each new token sees."""
    total = point.held + point.new
    mask, seen = _operand(node, _MASK), _operand(node, _SEEN)
    if _operand(node, _PAST_KEY) is not None or _operand(node, _PAST_VALUE) is not None:
        raise _refused(node, "has a past of its own beside the cache")
    lengths = None
    if seen is not None:
        lengths = found.get(seen)
        if lengths is None or not (lengths == total).all():
            raise _refused(node, "does not see as many keys as the cache holds")
    attrs = node.attrs
    windows = (attrs.get("left_window_size", -1), attrs.get("right_window_size", -1))
    offset = np.array(0) if lengths is None else lengths - point.new
    own = visible_keys(point.new, total, offset, lengths, attrs.get("is_causal", 0), *windows)
    visible = np.ones((1, 1, point.new, total), np.bool_) if own is None else own
    if mask is not None:
        visible = visible & _shown(node, found.get(mask), total)
    first = visible[:1, :1]
    if not (visible == first).all():
        raise _refused(node, "shows other keys to some slots of the batch, or to some heads")
    shown: Array = np.broadcast_to(first[0, 0], (point.new, total))
    return shown


def _shown(node: Node, mask: Array | None, total: int) -> Array:
    """A mask, bool or to be added, as what it shows of the rows that there are."""
    if mask is None:
        raise _refused(node, "has a mask that does not follow from lengths alone")
    mask = mask[..., :total]
    mask = mask.reshape((1,) * (4 - mask.ndim) + mask.shape)
    if mask.dtype == np.bool_:
        return mask
    wide = mask.astype(np.float64)
    if not ((wide == 0) | (wide <= _HIDDEN)).all():
        raise _refused(node, "has a mask that adds to the scores of keys it shows")
    shown: Array = wide == 0
    return shown


def _operand(node: Node, number: int) -> Value | None:
    return node.inputs[number] if number < len(node.inputs) else None


def _refused(node: Node, told: str) -> MiniinferError:
    hint = "a cache is for causal attention over all tokens, or over a window of them"
    return ModelError(f"attention over the cache {told}", hint=hint).at(f"node {node.name!r}")


def readers_of(values: Sequence[Value]) -> list[Node]:
    """The nodes that read one of the values, each once."""
    return list(dict.fromkeys(n for v in values for n in v.users))
