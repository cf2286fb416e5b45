"""The runner: a table of what came out, and one case again by its seed."""

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.fuzz.semantic import farm
from tests.fuzz.semantic.cases import KINDS, Outcome, emptied, run_case


def main() -> int:
    """Runs what the flags say; 0 when no promise was broken and no difference is unknown."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.semantic", description=__doc__)
    parser.add_argument("--kind", choices=KINDS, default="models")
    parser.add_argument("--seed", type=int, help="run this case alone, and show what it tells")
    parser.add_argument("--first", type=int, default=0, help="the first seed (default 0)")
    parser.add_argument("--count", type=int, default=1000, help="how many cases (default 1000)")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after so many seconds")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--keep", type=Path, help="copy the files of broken cases here")
    flags = parser.parse_args()
    os.environ |= {"MINIINFER_CACHE": "", "MINIINFER_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    if flags.seed is not None:
        return _one(flags.kind, flags.seed, flags.keep)
    return _many(flags)


def _one(kind: str, seed: int, keep: Path | None) -> int:
    with tempfile.TemporaryDirectory() as made:
        folder, plans = emptied(Path(made) / "case"), emptied(Path(made) / "plans")
        outcome = run_case(kind, seed, folder, plans)
        print((folder / "told").read_text(errors="replace"), end="")
        print(outcome)
        os.chdir(made)
        if keep is not None:
            shutil.copytree(folder, keep / f"{kind}-{seed}", dirs_exist_ok=True)
    return int(outcome.broken)


def _many(flags: argparse.Namespace) -> int:
    started, seen = time.monotonic(), list[Outcome]()
    for outcome in farm.outcomes(
        flags.kind, flags.first, flags.count, workers=flags.workers, seconds=flags.seconds, keep=flags.keep
    ):
        seen.append(outcome)
        if outcome.broken or outcome.difference:
            print(f"{outcome.kind} --seed {outcome.seed}: {_told(outcome)}", flush=True)
    print_table(flags.kind, flags.first, seen, time.monotonic() - started)
    return int(any(o.broken or o.difference for o in seen))


def _told(outcome: Outcome) -> str:
    parts = [f"exits {outcome.codes}", f"{outcome.seconds:.1f} s", f"{outcome.peak_nbytes >> 20} MiB"]
    parts += [outcome.signature] if outcome.signature else []
    parts += [f"no hint: {outcome.unhinted}"] if outcome.unhinted else []
    parts += [f"differs: {outcome.difference}"] if outcome.difference else []
    return "; ".join(parts)


def print_table(kind: str, first: int, seen: list[Outcome], seconds: float) -> None:
    """The figures of a run."""
    codes = Counter(max(o.codes, key=abs, default=0) for o in seen)
    slowest = max(seen, key=lambda o: o.seconds, default=None)
    largest = max(seen, key=lambda o: o.peak_nbytes, default=None)
    print(f"{kind}: {len(seen)} cases from seed {first} in {seconds:.0f} s ({len(seen) / max(seconds, 1e-9):.1f} a second)")
    print("exits        " + ", ".join(f"{code}: {count}" for code, count in sorted(codes.items())))
    if slowest is not None and largest is not None:
        print(f"slowest      {slowest.seconds:.1f} s of processor time (seed {slowest.seed})")
        print(f"most memory  {largest.peak_nbytes >> 20} MiB (seed {largest.seed})")
    for title, name in (
        ("tracebacks", "signature"),
        ("without hint", "unhinted"),
        ("differences", "difference"),
        ("not ours", "excuse"),
    ):
        counts = Counter(getattr(o, name) for o in seen if getattr(o, name))
        print(f"{title:<12} {len(counts)} kinds, {counts.total()} cases")
        for text, count in counts.most_common(40):
            example = next(o.seed for o in seen if getattr(o, name) == text)
            print(f"  {count:5}  seed {example:<8} {text}")


if __name__ == "__main__":
    sys.exit(main())
