"""The runner: a report of what came out, and one case again by its seed."""

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from types import FrameType

from tests.fuzz.semantic import farm
from tests.fuzz.semantic.cases import KINDS, emptied, run_case
from tests.fuzz.semantic.report import Report
from tests.fuzz.semantic.runtime_server import RuntimeServer


def main() -> int:
    """Runs what the flags say; 0 when no promise was broken and no difference is unknown."""
    started = time.monotonic()
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.semantic", description=__doc__)
    parser.add_argument("--kind", choices=KINDS, nargs="+", default=["models"], help="several take turns (default models)")
    parser.add_argument("--seed", type=int, help="run this case alone, and show what it tells")
    parser.add_argument("--first", type=int, default=0, help="the first seed (default 0)")
    parser.add_argument("--count", type=int, default=1000, help="how many cases of each kind (default 1000)")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop so many seconds after the start")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--keep", type=Path, help="copy the files of broken cases here")
    parser.add_argument("--report", type=Path, help="write the figures here as JSON, anew every two seconds")
    flags = parser.parse_args()
    os.environ |= {"MINIINFER_CACHE": "", "MINIINFER_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    if flags.seed is not None:
        return max(_one(kind, flags.seed, flags.keep) for kind in flags.kind)
    return _many(flags, started)


def _one(kind: str, seed: int, keep: Path | None) -> int:
    with tempfile.TemporaryDirectory() as made, RuntimeServer() as server:
        folder, plans = emptied(Path(made) / "case"), emptied(Path(made) / "plans")
        outcome = run_case(kind, seed, folder, plans, server)
        print((folder / "told").read_text(errors="replace"), end="")
        print(outcome)
        os.chdir(made)
        if keep is not None:
            shutil.copytree(folder, keep / f"{kind}-{seed}", dirs_exist_ok=True)
    return int(outcome.broken)


def _many(flags: argparse.Namespace, started: float) -> int:
    keep = None if flags.keep is None else flags.keep.resolve()
    if flags.report is not None:
        flags.report.resolve().parent.mkdir(parents=True, exist_ok=True)
    settings = {"workers": flags.workers, "first": flags.first, "count": flags.count}
    report = Report(flags.kind, None if flags.report is None else flags.report.resolve(), **settings)
    state = "interrupted"
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        ends = started + flags.seconds
        for outcome in farm.outcomes(flags.kind, flags.first, flags.count, workers=flags.workers, ends=ends, keep=keep):
            report.add(outcome)
        state = "finished" if time.monotonic() < ends else "out of time"
    except KeyboardInterrupt:
        pass
    finally:
        report.write(state)
    print("\n".join(report.lines()), flush=True)
    return 130 if state == "interrupted" else int(not report.clean)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
