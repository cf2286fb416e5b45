"""Samples to calibrate with: a folder of .npy and .npz files, one of them, or what an iterable gives; in pieces of few rows."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from engine_format import DimensionRange
from miniinfer_cli.errors import UsageError, refused
from miniinfer_cli.ir import Array, Dim, TensorType, Type, Value
from miniinfer_cli.ir.array_files import DAMAGED
from miniinfer_cli.wording import Wording

ROWS = 8
"""Rows (images, sentences) of one piece, where the model takes any number: results of all layers are held for so many."""
_HINT = Wording(
    "give calibrate=FOLDER of .npy or .npz files, or an iterable of arrays, or of dicts of arrays by input name",
    flags="give --calibrate FOLDER of .npz files (arrays by input name), or of .npy files where there is one input",
)


@dataclass(frozen=True, slots=True)
class Sample:
    """Arrays by input name, and where they come from."""

    name: str
    feeds: Mapping[str, Array]


class Samples:
    """What is given to calibrate with, read one after the other. ``count``: how many there are, None where nobody can tell."""

    def __init__(self, given: Any) -> None:
        self._files: Sequence[Path] = ()
        self._given: Iterable[Any] = ()
        self.count: int | None = None
        if isinstance(given, (str, os.PathLike)):
            self._files = _files_of(Path(given))
            self.count = len(self._files)
        elif isinstance(given, Iterable) and not isinstance(given, (bytes, Mapping)):
            self._given = given
            self.count = len(given) if isinstance(given, Sized) else None
        else:
            raise UsageError(f"calibrate: expected a folder or an iterable, got {type(given).__name__}", hint=_HINT)

    def read(self, inputs: Sequence[Value]) -> Iterator[Sample]:
        """Each sample, for a model of these inputs. Raises UsageError for what is none, by its place."""
        for path in self._files:
            yield Sample(str(path), _named(_loaded(path), inputs, str(path)))
        for number, item in enumerate(self._given):
            yield Sample(f"sample {number}", _named(item, inputs, f"calibrate: sample {number}"))


def pieces(sample: Sample, inputs: Sequence[Value], ranges: Sequence[DimensionRange] = ()) -> Iterator[dict[str, Array]]:
    """The sample in pieces along the first axis, where all inputs have as many rows there and the model takes fewer.

    That is where their first dimension is one open size, or one that divides the rows that are given.
    """
    kinds = {v.name: v.type for v in inputs}
    firsts = {_first_dim(kinds[name]) for name in sample.feeds}
    counts = {a.shape[0] if a.ndim else 0 for a in sample.feeds.values()}
    first, rows = (firsts.pop(), counts.pop()) if len(firsts) == len(counts) == 1 else (None, 0)
    least, step = (first, first) if isinstance(first, int) else _rows_within(first, ranges)
    if first is None or step <= 0 or rows <= step or (isinstance(first, int) and rows % step):
        yield dict(sample.feeds)
        return
    for start in range(0, rows, step):
        if rows - start >= least:  # fewer are left than the model takes
            yield {name: a[start : start + step] for name, a in sample.feeds.items()}


def reread(given: Any) -> Any:
    """``given``, to be read more than once: what an iterable gives is held."""
    is_read_once = isinstance(given, Iterable) and not isinstance(given, (str, os.PathLike, Mapping, bytes))
    return list(given) if is_read_once else given


def sampled_feeds(given: Any, inputs: Sequence[Value], ranges: Sequence[DimensionRange], count: int) -> list[Mapping[str, Array]]:
    """The first ``count`` pieces of the samples, to run a model on."""
    feeds: list[Mapping[str, Array]] = []
    for sample in Samples(given).read(inputs):
        feeds += list(pieces(sample, inputs, ranges))[: count - len(feeds)]
        if len(feeds) == count:
            break
    return feeds


def _first_dim(type: Type | None) -> Dim | None:
    return type.shape[0] if isinstance(type, TensorType) and type.shape else None


def _rows_within(dim: Dim | None, ranges: Sequence[DimensionRange]) -> tuple[int, int]:
    """The fewest rows of an open first dimension, and those of a piece."""
    known = next((r for r in ranges if r.name == str(dim)), None)
    return (0, ROWS) if known is None else (known.minimum, min(max(ROWS, known.minimum), known.largest or ROWS))


def _files_of(path: Path) -> list[Path]:
    try:
        path.stat()
        files = sorted(p for p in path.iterdir() if p.suffix in (".npy", ".npz")) if path.is_dir() else [path]
    except OSError as error:
        raise refused(error, f"cannot be read: {error.strerror or error}", path) from None
    if not files:
        raise UsageError("holds no .npy or .npz file", hint=_HINT).at(str(path))
    return files


def _loaded(path: Path) -> Any:
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return loaded
        with loaded:
            return {name: loaded[name] for name in loaded.files}
    except OSError as error:
        raise refused(error, f"cannot be read: {error.strerror or error}", path) from None
    except DAMAGED as error:
        # numpy takes all else for a pickle, and advises to trust it.
        what = "it holds Python objects, or is neither .npy nor .npz" if "allow_pickle" in str(error) else error
        raise UsageError(f"does not hold arrays: {what}", hint="write it by np.save or np.savez").at(str(path)) from None


def _named(item: Any, inputs: Sequence[Value], where: str) -> dict[str, Array]:
    """The arrays of a sample by name; a single one is that of the model's only input."""
    names = [v.name for v in inputs]
    if not isinstance(item, Mapping):
        if len(names) != 1:
            told = f"{where} is one array, and the model has the inputs {', '.join(names)}"
            raise UsageError(told, hint="give arrays by the names of the inputs")
        item = {names[0]: item}
    unknown = [name for name in item if name not in names]
    if unknown:
        raise UsageError(f"{where}: there is no input {unknown[0]!r}", hint=f"the inputs are {', '.join(names)}")
    return {name: np.asarray(value) for name, value in item.items()}
