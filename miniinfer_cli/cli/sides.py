"""What ``compare`` is given: plans, ONNX models, saved outputs and results of measurements; each is told by what it holds."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np

from engine_format.layout import MAGIC
from miniinfer_cli.cli.documents import read_document
from miniinfer_cli.cli.feeds import ARCHIVES, read_arrays
from miniinfer_cli.cli.last_resort import last_resort
from miniinfer_cli.cli.outputs import Source
from miniinfer_cli.cli.report import RESULTS_VERSION
from miniinfer_cli.cli.sources import model_sources, sources
from miniinfer_cli.cli.wanted import Wanted
from miniinfer_cli.devices.head_start import head_start
from miniinfer_cli.devices.opening import load
from miniinfer_cli.errors import MiniinferError, PlanFileError, UsageError, refused
from miniinfer_cli.ir import TensorType, dtype_of
from miniinfer_cli.pipes import pipe_contents
from miniinfer_cli.runtime.engine import Engine

RESULT_KINDS = ("run", "profile", "compare")
"""Kinds of documents of docs/results.md that hold times of one setting."""


class Kind(StrEnum):
    """What a file is, in words."""

    PLAN = "plan"
    MODEL = "ONNX model"
    OUTPUTS = "saved outputs"
    RESULTS = "results"


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two: ``letter`` is A or B. ``contents``: what came through a pipe, which can be read once; None for a file."""

    letter: str
    file: Path
    kind: Kind
    contents: bytes | None = None

    @property
    def runs(self) -> bool:
        """Whether it can be run."""
        return self.kind in (Kind.PLAN, Kind.MODEL)

    @property
    def source(self) -> Path | bytes:
        """What to read it from."""
        return self.file if self.contents is None else self.contents

    def sources(self, plugins: Sequence[str]) -> Iterator[Source]:
        """The files that reading it reads."""
        of_model = self.kind is Kind.MODEL and self.contents is None
        yield from (model_sources if of_model else sources)(self.file, plugins=plugins)

    def arrays(self) -> dict[str, Any]:
        """The saved outputs by name. Raises UsageError for a damaged file."""
        return read_arrays(self.file, self.contents)

    def results(self) -> dict[str, Any]:
        """The document of results. Raises UsageError for one that is damaged, of another kind or of a newer version."""
        return _expect_results(read_document(self.file, _HINT_RESULTS, self.contents), self.file)


_HINT_RESULTS = "give what miniinfer run --json, profile --json or compare --json wrote"


def _expect_results(document: Any, file: Path) -> dict[str, Any]:
    """``document``, where it holds times as docs/results.md describes them. Raises UsageError for another one."""
    version = document.get("schema_version") if isinstance(document, Mapping) else None
    if version is None:
        raise UsageError("holds no results of miniinfer", hint=_HINT_RESULTS).at(str(file))
    if version != RESULTS_VERSION:
        raise UsageError(f"has version {version!r}, expected {RESULTS_VERSION}", hint="measure again with this release").at(
            str(file)
        )
    if document.get("kind") not in RESULT_KINDS:
        raise UsageError(f"is of kind {document.get('kind')!r}, expected {', '.join(RESULT_KINDS)}", hint=_HINT_RESULTS).at(
            str(file)
        )
    return dict(document)


def look_at(letter: str, file: Path) -> Side:
    """What ``file`` is, by its first bytes. Raises UsageError where it cannot be read, PlanFileError for a plan in a pipe."""
    try:
        contents = pipe_contents(file)
        if contents is None:
            with file.open("rb") as stream:
                first = stream.read(64)
        else:
            first = contents[:64]
    except OSError as error:
        raise refused(error, f"cannot be read: {error.strerror}", file) from None
    if first.startswith(MAGIC) or (contents is None and file.suffix == ".plan"):
        if contents is not None:
            raise PlanFileError("a plan cannot be read through a pipe", hint="give its file").at(str(file))
        return Side(letter, file, Kind.PLAN)
    if first.startswith(ARCHIVES) or file.suffix == ".npz":
        return Side(letter, file, Kind.OUTPUTS, contents)
    if first.lstrip().startswith(b"{") or file.suffix == ".json":
        return Side(letter, file, Kind.RESULTS, contents)
    return Side(letter, file, Kind.MODEL, contents)


@contextmanager
def opened_plan(plan: Path, wanted: Wanted) -> Iterator[Engine]:
    """The plan at ``plan`` on the device that is wanted."""
    with head_start(plan, wanted.device, wanted.gpu.scheduling):
        engine = load(plan, wanted.device, wanted.gpu)
    with engine, last_resort(engine):
        yield engine


@contextmanager
def told_of(side: Side) -> Iterator[None]:
    """Names the side in the errors that are raised meanwhile."""
    try:
        yield
    except MiniinferError as error:
        raise error if str(side.file) in error.where else error.at(f"{side.letter} ({side.file})") from None


def fitting(engine: Engine, feeds: Mapping[str, Any]) -> dict[str, Any]:
    """``feeds`` for this engine: floats in the types that its inputs have. Raises UsageError where names differ."""
    inputs = {b.name: b for b in engine.inputs}
    if inputs.keys() != feeds.keys():
        raise UsageError(
            f"its inputs are {', '.join(inputs) or 'none'}, those of the other side {', '.join(feeds) or 'none'}",
            hint="both sides must take the same inputs: rename them in one of the models",
        )
    found = {}
    for name, value in feeds.items():
        kind = inputs[name].type
        both_float = isinstance(kind, TensorType) and isinstance(value, np.ndarray) and kind.dtype.is_float
        dtype = inputs[name].dtype
        recast = both_float and value.dtype != dtype and value.dtype != object and dtype_of(value).is_float
        found[name] = value.astype(dtype) if recast else value
    return found
