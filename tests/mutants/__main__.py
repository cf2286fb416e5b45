"""``python -m tests.mutants``: runs mutants, says what survives, and keeps the outcomes in a file."""

import argparse
import shlex
import sys
from collections import Counter
from pathlib import Path

from tests.mutants.families import FAMILIES
from tests.mutants.forked_tests import with_collected_tests
from tests.mutants.hunt import Outcome, Record, hunt
from tests.mutants.mutant import mutants_of
from tests.mutants.named_tests import ROOT


def main() -> int:
    """Returns 0 when nothing has survived."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("--match", nargs="+", default=[""], metavar="TEXT", help="mutants whose names contain one of these")
    parser.add_argument("--workers", type=int, default=1, help="children at a time")
    parser.add_argument("--fresh", action="store_true", help="run again what was killed before")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "mutants.json", help="where the outcomes are kept")
    parser.add_argument("--list", action="store_true", help="only say which mutants there are")
    options = parser.parse_args()
    chosen = [m for m in mutants_of(FAMILIES) if any(text in m.name for text in options.match)]
    if options.list:
        print("\n".join(f"{m.name}  {' '.join(m.files)}" for m in chosen))
        return 0
    if not chosen:
        parser.error(f"no mutant's name contains any of {options.match}")
    record = Record(options.out, fresh=options.fresh)
    open_ = [m for m in chosen if not record.is_done(m)]
    print(f"{len(chosen)} mutants, {len(chosen) - len(open_)} of them done before", flush=True)
    seen = 0

    def tell(outcome: Outcome) -> None:
        nonlocal seen
        seen += 1
        record.add(outcome)
        if outcome.state == "survived":
            print(f"[{seen}/{len(open_)}] SURVIVED {outcome.mutant}: {outcome.why}", flush=True)

    if open_:
        files = list(dict.fromkeys(f for m in open_ for f in m.files))
        failed = with_collected_tests(files, lambda items: hunt(FAMILIES, open_, items, options.workers, tell))
        if failed:
            print(f"the tests could not be run: pytest's exit code is {failed}", file=sys.stderr)
            return 2
    return _report([record.outcomes[m.name] for m in chosen if m.name in record.outcomes], options.out)


def _report(outcomes: list[Outcome], path: Path) -> int:
    counts = Counter((o.mutant.partition("/")[0], o.state) for o in outcomes)
    for family in FAMILIES:
        killed, survived, none = (counts[(family, state)] for state in ("killed", "survived", "none"))
        if killed + survived + none:
            print(f"{family:12} {killed:5} killed {survived:5} survived {none:5} with nothing to change")
    survivors = [o for o in outcomes if o.state == "survived"]
    for outcome in survivors:
        print(f"SURVIVED {outcome.mutant}: {outcome.why}\n  python -m tests.mutants --match {shlex.quote(outcome.mutant)}")
    print(f"outcomes are in {path}")
    return int(bool(survivors))


sys.exit(main())
