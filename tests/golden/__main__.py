"""The golden record on the command line.

python -m tests.golden                     make every program anew and say which step of which model differs in what
python -m tests.golden --match bert        of these models alone
python -m tests.golden --show --match bert the programs of the record, as text
python -m tests.golden --write             put the programs as they are now into the record
python -m tests.golden --record out.json   on a GPU: ask its libraries, and keep what they answer
"""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from tests.golden import record
from tests.golden.comparing import differences, summary
from tests.golden.models import DTYPES, MODELS
from tests.golden.recording import record_answers, spread

_SHOWN = 60


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.golden", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--match", default="", metavar="TEXT", help="only models whose names contain this")
    parser.add_argument("--real-weights", action="store_true", help="with weights of the models' own, which take gigabytes")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes (default: one to a processor)")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--write", action="store_true", help="put the programs as they are now into the record")
    what.add_argument("--show", action="store_true", help="print the record")
    what.add_argument("--record", type=Path, metavar="FILE", help="ask the libraries of the GPU here, and write their answers")
    options = parser.parse_args(arguments)
    names = [name for name in MODELS if options.match in name]
    if not names:
        parser.error(f"--match: none of {', '.join(MODELS)} contains {options.match!r}")
    if options.record is not None:
        started = time.perf_counter()
        answers = record_answers([(n, d) for n in names for d in DTYPES], options.workers)
        answers.write(options.record)
        refused = sum(a is None for a in answers.answers.values())
        print(f"{options.record}: {len(answers.answers)} answers, {refused} refusals, {time.perf_counter() - started:.0f} s")
        return 0
    if options.show:
        for name in names:
            sys.stdout.write(record.read(name))
        return 0
    make = partial(record.made, real_weights=options.real_weights)
    with spread(options.workers, len(names)) as each:
        differ = [_tell(name, text, write=options.write) for name, text in each(make, names)]
    return 1 if any(differ) and not options.write else 0


def _tell(name: str, text: str, *, write: bool) -> bool:
    """Says how a model stands to its record; True when it differs from it."""
    if write:
        print(f"{name}: {'written' if record.write(name, text) else 'as it was'}", flush=True)
        return False
    found = differences(record.read(name), text)
    print(f"{name}: {summary(found, _SHOWN) if found else 'equal'}", flush=True)
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
