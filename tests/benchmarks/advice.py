"""Advice of ``profile``, taken: what it said that a change saves beside what that saves, as two plans measured in turn tell.

    python -m tests.benchmarks.advice [--device cpu] [--made] [--others] [--small] [--model NAME ...] [--zoo N] [--part K/N]
        [--seconds S] [--rounds N] [--one-process] [--json FILE]

Models are those made to be bound by one thing (``--made``, and ``--others`` of the same kinds), of which it is compared as
well what bounds them; sample models; and N networks of the zoo where PyTorch is installed. Each advice with a gain is applied
by public means: flags of ``run`` and ``build``, and edits of the ONNX model (an output less, an input of uint8); then
``miniinfer run`` measures before and after, ``--rounds`` times in turn, each in a process of its own or, which takes half as
long, all in this one. Pinned inputs are a matter of the caller: not applied here. ``--part 2/5``: the second fifth.
"""

import argparse
import itertools
import json
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import onnx

from sample_models.catalogue import FAMILIES, generate
from sample_models.request import Request
from tests.benchmarks.applying import CannotApply, Commands, Subject, applied
from tests.diagnosis.models import ON_CPU, ON_GPU, Made
from tests.diagnosis.other_models import OTHERS_ON_CPU, OTHERS_ON_GPU

SLOWER = 0.03
_TOKENS, _SMALL_TOKENS = 128, 32  # of the text models; small ones have so many positions


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--made", action="store_true")
    parser.add_argument("--others", action="store_true")
    parser.add_argument("--small", action="store_true", help="sample models of a few layers")
    parser.add_argument("--zoo", type=int, default=0, metavar="N")
    parser.add_argument("--model", action="append", default=[], choices=[n for n, f in FAMILIES.items() if f.in_all])
    parser.add_argument("--part", default="1/1", metavar="K/N", help="of all these subjects")
    parser.add_argument("--seconds", type=float, default=1.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one-process", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    commands = Commands(options.one_process)
    rows: list[dict[str, Any]] = []
    wrong, failed = 0, 0
    with tempfile.TemporaryDirectory() as folder:
        for subject in subjects(options, Path(folder)):
            try:
                kind, missing, found = take_advice(subject, options, commands)
            except RuntimeError as error:
                failed += 1
                print(f"{subject.name}: {error}", flush=True)
                continue
            right = subject.kind in (None, kind) and not missing
            wrong += not right
            expected = "" if subject.kind in (None, kind) else f", expected {subject.kind}"
            print(f"{subject.name}: {kind}{expected}{missing}; {len(found)} advice", flush=True)
            for row in found:
                print(f"  {told(row)}", flush=True)
            rows += found
    print_total(rows, wrong, failed)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")
    return 1 if wrong else 0


def subjects(options: argparse.Namespace, folder: Path) -> Iterator[Subject]:
    """The models asked for, each as a file."""
    on_cpu = options.device == "cpu"
    made: dict[str, Made] = {}
    made |= (ON_CPU if on_cpu else ON_GPU) if options.made else {}
    made |= (OTHERS_ON_CPU if on_cpu else OTHERS_ON_GPU) if options.others else {}
    part, parts = map(int, options.part.split("/"))

    def mine(all_names: Sequence[str]) -> list[str]:
        return list(itertools.islice(all_names, part - 1, None, parts))

    for name in mine(list(made)):
        path = folder / f"{name.replace(' ', '_')}.onnx"
        onnx.save(made[name].model(), path)
        yield _of_made(name, made[name], path)
    for name in mine(options.model):
        request = Request(seq=_SMALL_TOKENS if options.small else _TOKENS, small=options.small)
        path = folder / f"{name}.onnx"
        onnx.save(generate(name, request), path)
        yield Subject(name, path)
    if options.zoo:
        from tests.benchmarks.advised_zoo import exported, some_of_the_zoo

        for name, file, error in exported(mine(some_of_the_zoo(options.zoo)), folder):
            if file is None:
                print(f"{name}: not exported: {error}", flush=True)
            else:
                yield Subject(name, file)


def _of_made(name: str, made: Made, path: Path) -> Subject:
    kind = None if made.kind is None else str(made.kind)
    return Subject(name, path, made.run, made.build, kind, made.advice, made.blocked)


def take_advice(subject: Subject, options: argparse.Namespace, commands: Commands) -> tuple[str, str, list[dict[str, Any]]]:
    """What bounds the model; what is missing of what is expected of it; and a row for each advice with a gain.

    Raises RuntimeError where a command fails.
    """
    plan = commands.build(subject.path, subject.build)
    run = ("--device", options.device, *subject.run)
    document = commands.json("profile", plan, *run, "--json", "-", "--duration", max(options.seconds, 1.0), "--iterations", 5)
    finding = document["findings"][0]
    rows = []
    for advice in (a for a in finding["advice"] if a["gain_ms"] is not None and a["name"] != "pinned input"):
        try:
            changed, flags, samples = applied(subject, advice, plan, run, commands)
        except CannotApply as error:
            print(f"  {subject.name}: {advice['name']}: {error}", flush=True)
            continue
        sides = ((plan, run), (changed, flags))
        before, after = _in_turns(options.rounds, *(partial(commands.wall_ms, *side, options.seconds) for side in sides))
        after = [ms / samples for ms in after]
        saved = 1 - statistics.median(a / b for a, b in zip(after, before, strict=True))
        claimed = advice["gain_ms"] / advice["before_ms"]
        times = {"profiled_ms": advice["before_ms"], "before_ms": before, "after_ms": after}
        saves = {"claimed": claimed, "saved": saved, "ratio": saved / claimed}
        rows.append({"model": subject.name, "advice": advice["name"], **saves, **times})
    return finding["kind"], _missing(subject, finding, document), rows


def _missing(subject: Subject, finding: Mapping[str, Any], document: Mapping[str, Any]) -> str:
    tried = {t["name"] for t in document["tried"]}
    missing = [f", {subject.advice!r} was not tried"] if subject.advice is not None and subject.advice not in tried else []
    blocked = "in layers whose fusion is blocked" in {f["what"] for f in finding["evidence"]}
    return "".join([*missing, *([", no blocked fusion told of"] if subject.blocked and not blocked else [])])


def _in_turns(rounds: int, *sides: Callable[[], float]) -> list[list[float]]:
    times: list[list[float]] = [[] for _ in sides]
    for _ in range(rounds):
        for column, side in zip(times, sides, strict=True):
            column.append(side())
    return times


def told(row: Mapping[str, Any]) -> str:
    """A line on one advice."""
    times = " ".join(f"{b:.4g}>{a:.4g}" for b, a in zip(row["before_ms"], row["after_ms"], strict=True))
    claim = f"claimed {100 * row['claimed']:.0f} %, saved {100 * row['saved']:.0f} %, ratio {row['ratio']:.2f}"
    return f"{row['advice']}: {claim} (profiled {row['profiled_ms']:.4g} ms; {times})"


def print_total(rows: Sequence[Mapping[str, Any]], wrong: int, failed: int) -> None:
    """How many claims held, and whether any made it slower."""
    held = sum(0.7 <= r["ratio"] <= 1.3 for r in rows)
    slower = [f"{r['model']}: {r['advice']}" for r in rows if r["saved"] < -SLOWER]
    print(
        f"{held} of {len(rows)} claims within 0.7 to 1.3; slower by over 3 %: {', '.join(slower) or 'none'};"
        f" wrongly diagnosed: {wrong}; failed: {failed}"
    )


if __name__ == "__main__":
    sys.exit(main())
