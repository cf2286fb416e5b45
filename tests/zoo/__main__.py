"""Exports the networks of the zoo with PyTorch, builds and runs them, and compares the outputs with PyTorch's.

    python -m tests.zoo [--device cpu|cuda:N] [--match PATTERN] [--workers N] [--dynamo] [--precision f16|bf16]

torch, torchvision, timm and transformers must be installed; weights are random, in f32, without TF32, and of those named f16/...
in f16. What this release of PyTorch cannot export is told and counted apart. Exits with 1 when an export is not built, does not
run, or errs by more than 1e-5, or 4 times what PyTorch's own f32 errs by where that is more; in f16, 1.5 times. With --precision
the exports in f32 are built in 16 bits, and may err by what is allowed to those, or 1.5 times what PyTorch errs by in them.
"""

import argparse
import multiprocessing
import re
import sys
import tempfile
from collections import Counter

from tests.zoo.compare import OUTCOMES, compare, names


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--match", default="", help="a pattern that names must contain")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--dynamo", action="store_true", help="PyTorch's newer exporter, which fixes all sizes")
    parser.add_argument("--precision", choices=("f16", "bf16"), help="build what is exported in f32 in 16 bits")
    options = parser.parse_args()
    matching = [n for n in names() if re.search(options.match, n) and not (options.precision and n.startswith("f16/"))]
    counts: Counter[str] = Counter()
    with (
        tempfile.TemporaryDirectory() as folder,
        multiprocessing.get_context("spawn").Pool(options.workers, maxtasksperchild=8) as pool,
    ):
        jobs = [(n, options.device, options.dynamo, folder, options.precision) for n in matching]
        for outcome, line in pool.imap_unordered(compare, jobs):
            counts[outcome] += 1
            print(f"{outcome}: {line}", flush=True)
    print(", ".join(f"{counts[o]} {o}" for o in OUTCOMES))
    return 1 if counts["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
