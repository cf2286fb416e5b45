"""Engines and their outputs as a notebook shows them."""

import html
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from miniinfer_cli.ir import TensorType, dtype_of
from miniinfer_cli.runtime.bindings import Binding
from miniinfer_cli.visible import visible

_MOST_ROWS = 50


class Outputs(dict[str, Any]):
    """What a run gives: a dict of outputs by name, which a notebook shows as a table."""

    def __reduce__(self) -> Any:
        """Pickled, it is a plain dict: whoever reads it needs nothing of ours."""
        return dict, (dict(self),)

    def _repr_html_(self) -> str:
        """Name, type and range of each output."""
        rows = [(name, _described(value), *_range(value)) for name, value in self.items()]
        return _table(("output", "type", "least", "mean", "most"), rows)


def engine_html(device: str, inputs: Sequence[Binding], outputs: Sequence[Binding], note: str) -> str:
    """The bindings of an engine, with a line on top."""
    rows = [(kind, b.name, str(b.type or "?"), "" if b.default is None else "optional")
            for kind, bindings in (("input", inputs), ("output", outputs)) for b in bindings]  # fmt: skip
    return f"<p>miniinfer engine on <b>{_text(device)}</b>{_text(note)}</p>" + _table(("", "name", "type", ""), rows)


def _described(value: Any) -> str:
    if not hasattr(value, "shape"):
        return f"{type(value).__name__} of {len(value)}" if isinstance(value, (list, tuple, dict)) else type(value).__name__
    return str(TensorType(dtype_of(np.empty(0, value.dtype)), tuple(value.shape)))


def _range(value: Any) -> tuple[str, str, str]:
    """The least, the mean and the largest number; nothing for what is not on the host, or holds none."""
    if not isinstance(value, np.ndarray) or not value.size or value.dtype.kind in "OSUc":
        return "", "", ""
    numbers = value.astype(np.float64)
    with np.errstate(all="ignore"):
        return f"{numbers.min():.5g}", f"{numbers.mean():.5g}", f"{numbers.max():.5g}"


def _table(head: Iterable[str], rows: Sequence[Sequence[str]]) -> str:
    lines = "".join(f"<tr>{''.join(f'<td>{_text(cell)}</td>' for cell in row)}</tr>" for row in rows[:_MOST_ROWS])
    more = f"<tr><td>{len(rows) - _MOST_ROWS} more</td></tr>" if len(rows) > _MOST_ROWS else ""
    return f"<table><tr>{''.join(f'<th>{_text(title)}</th>' for title in head)}</tr>{lines}{more}</table>"


def _text(text: str) -> str:
    return html.escape(visible(text))
