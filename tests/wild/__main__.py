"""Trained models that packages of PyPI carry, beside ONNX Runtime: numbers, and the processor's time with one thread.

    python -m tests.wild [WORD ...] [--seconds 2] [--json FILE] [--markdown FILE] [--judge]

WORD: only models that have it in their name or their program's. Exit code 1 when an output differs, a file is not the one that
``models.py`` names, or a program does not call its model; with ``--judge`` also when times are not as docs/wild.md wants them.
"""

import argparse
import contextlib
import hashlib
import io
import json
import os
import statistics
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np

from tests.wild.measuring import SECONDS, Row, measured
from tests.wild.models import MODELS, Model
from tests.wild.page import MEDIAN, MOST, markdown
from tests.wild.programs import PROGRAMS
from tests.wild.recording import Calls, calls_of

SITE = Path(np.__file__).parent.parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", default=[])
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    parser.add_argument("--judge", action="store_true")
    options = parser.parse_args()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    wanted = [m for m in MODELS if not options.words or any(w in f"{m.program} {m.name}" for w in options.words)]
    rows: list[Row] = []
    for program in dict.fromkeys(m.program for m in wanted):
        calls = quietly(program)
        rows += [row_of(model, calls, options.seconds) for model in wanted if model.program == program]
    ratios = [r.ratio for r in rows if not r.wrong] or [0.0]
    median, most = statistics.median(ratios), max(ratios)
    wrong = [r for r in rows if r.wrong]
    print(f"{len(rows)} models, {len(wrong)} differ; ratio: median {median:.2f}, most {most:.2f}")
    if options.json:
        options.json.write_text(json.dumps([asdict(r) | {"ratio": r.ratio} for r in rows], indent=1) + "\n")
    if options.markdown:
        options.markdown.write_text(markdown(rows))
    slow = options.judge and (median > MEDIAN or most > MOST)
    sys.exit(1 if wrong or slow else 0)


def quietly(program: str) -> Calls:
    """What a program asks of its models; what it says is shown where it fails."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said):
            return calls_of(PROGRAMS[program])
    except BaseException:
        print(said.getvalue()[-2000:])
        raise


def row_of(model: Model, calls: Calls, seconds: float) -> Row:
    path = SITE / model.path
    if not path.exists() or hashlib.sha256(path.read_bytes()).hexdigest() != model.digest:
        row = Row(model, "", wrong="not the file of models.py")
    elif not calls.get(model.digest):
        row = Row(model, "", wrong="its program does not call it")
    else:
        row = measured(model, path, calls[model.digest], seconds=seconds)
    told = (
        row.wrong
        or f"{row.error:8.1e} {row.ours_ms:9.3f} {row.theirs_ms:9.3f} {row.ratio:6.2f}  {row.build_s:5.1f} s  {row.note}"
    )
    print(f"{model.name:<64.64}{told}", flush=True)
    return row


if __name__ == "__main__":
    main()
