"""Advice of ``profile``, taken: what it said that a change saves beside what that saves, as two plans measured in turn tell.

    python -m tests.benchmarks.advice [--device cpu] [--made] [--small] [--zoo N] [--model NAME ...] [--seconds S] [--json FILE]

Models are those made to be bound by one thing (``--made``: what bounds each is compared as well), sample models, and N networks
of the zoo where PyTorch is installed. Each advice with a gain is applied by public means: flags of ``run`` and ``build``, and
edits of the ONNX model (an output less, an input of uint8, a generated model in f16); then ``miniinfer run`` measures before and
after, each in a process of its own, ``--rounds`` times in turn. Pinned inputs are a matter of the caller: not applied here.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, helper

from sample_models.catalogue import FAMILIES, generate
from sample_models.request import Request
from tests.diagnosis.models import ON_CPU, ON_GPU

SLOWER = 0.03


@dataclass(frozen=True)
class Subject:
    """A model file, flags that it is run with, and what is expected to bound it, where that is known."""

    name: str
    path: Path
    run: Sequence[str] = ()
    kind: str | None = None
    request: Request | None = None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--made", action="store_true")
    parser.add_argument("--small", action="store_true", help="sample models of a few layers")
    parser.add_argument("--zoo", type=int, default=0, metavar="N")
    parser.add_argument("--model", action="append", default=[], choices=[n for n, f in FAMILIES.items() if f.in_all])
    parser.add_argument("--seconds", type=float, default=1.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        for subject in subjects(options, Path(folder)):
            try:
                kind, found = take_advice(subject, options, Path(folder))
            except subprocess.CalledProcessError as error:
                print(f"{subject.name}: {error.stderr.strip().splitlines()[-1] if error.stderr else error}", flush=True)
                continue
            right = subject.kind in (None, kind)
            wrong += not right
            print(f"{subject.name}: {kind}{'' if right else f', expected {subject.kind}'}; {len(found)} advice", flush=True)
            for row in found:
                print(f"  {told(row)}", flush=True)
            rows += found
    print_total(rows, wrong)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")
    return 1 if wrong else 0


def subjects(options: argparse.Namespace, folder: Path) -> Iterator[Subject]:
    """The models asked for, each as a file."""
    made = ON_CPU if options.device == "cpu" else ON_GPU
    for name, one in made.items() if options.made else ():
        path = folder / f"{name.replace(' ', '_')}.onnx"
        onnx.save(one.model(), path)
        yield Subject(name, path, one.run, None if one.kind is None else str(one.kind))
    for name in options.model:
        request = Request(seq=128, small=options.small)
        path = folder / f"{name}.onnx"
        onnx.save(generate(name, request), path)
        yield Subject(name, path, request=request)
    if options.zoo:
        yield from _zoo(options.zoo, folder)


def _zoo(count: int, folder: Path) -> Iterator[Subject]:
    import torch

    from tests.zoo.compare import _export, entries

    for name, entry in list(entries().items())[:: max(len(entries()) // count, 1)][:count]:
        path = folder / f"{name.replace('/', '_')}.onnx"
        try:
            model, feeds = entry.make()
            _export(torch, model, feeds, path, False)
        except Exception as error:
            print(f"{name}: not exported: {type(error).__name__}", flush=True)
            continue
        yield Subject(name, path)


def take_advice(subject: Subject, options: argparse.Namespace, folder: Path) -> tuple[str, list[dict[str, Any]]]:
    """What bounds the model, and a row for each advice with a gain."""
    plan = build(subject.path)
    run = ("--device", options.device, *subject.run)
    document = miniinfer("profile", plan, *run, "--json", "-", "--duration", options.seconds, "--iterations", 5)
    finding = document["findings"][0]
    rows = []
    for advice in (a for a in finding["advice"] if a["gain_ms"] is not None and a["name"] != "pinned input"):
        changed, flags, samples = applied(subject, advice, plan, run, folder)
        before, after = [], []
        for _ in range(options.rounds):
            before.append(wall_ms(plan, run, options.seconds))
            after.append(wall_ms(changed, flags, options.seconds) / samples)
        saved = 1 - statistics.median(a / b for a, b in zip(after, before, strict=True))
        claimed = advice["gain_ms"] / advice["before_ms"]
        rows.append(
            {"model": subject.name, "advice": advice["name"], "claimed": claimed, "saved": saved, "ratio": saved / claimed}
        )
    return finding["kind"], rows


def applied(
    subject: Subject, advice: dict[str, Any], plan: Path, run: Sequence[Any], folder: Path
) -> tuple[Path, Sequence[Any], float]:
    """The plan and the flags of run with the advice, and how many times the samples an inference then has."""
    flags = advice["flags"]
    left_out = {name for name, value in flags.items() if value is False}
    more = [text for name, value in flags.items() if value is not False for text in (name, value)]
    if advice["command"] == "run":
        samples = int(flags.get("--batch", 1))
        return plan, [*(f for f in run if f not in left_out), *more], samples
    edited = folder / "edited.onnx"
    if advice["command"] == "build" and flags:
        return build(subject.path, more, "edited.plan"), run, 1
    if advice["name"] == "fixed sizes":
        document = miniinfer("run", plan, *run, "--json", "-", "--duration", 0, "--iterations", 1)
        shapes = [t for i in document["inputs"] for t in ("--shapes", f"{i['name']}:{'x'.join(map(str, i['shape']))}")]
        return build(subject.path, shapes, "edited.plan"), run, 1
    if advice["name"] == "f16" and subject.request is not None:
        onnx.save(generate(subject.name, subject.request, dtype="f16"), edited)
    else:
        onnx.save(edit(onnx.load(subject.path), advice), edited)
    return build(edited), run, 1


def edit(model: onnx.ModelProto, advice: dict[str, Any]) -> onnx.ModelProto:
    """The model without the outputs that the advice names, or with inputs of uint8."""
    graph = model.graph
    if advice["name"] == "without inner outputs":
        kept = [o for o in graph.output if o.name not in advice["names"]]
        del graph.output[:]
        graph.output.extend(kept)
        return model
    if advice["name"] != "uint8 input":
        raise ValueError(f"advice {advice['name']!r} is not known here")
    for value in (i for i in graph.input if i.name in advice["names"]):
        code, name = value.type.tensor_type.elem_type, value.name
        value.type.tensor_type.elem_type = TensorProto.UINT8
        for node in graph.node:
            node.input[:] = [f"{name}_converted" if i == name else i for i in node.input]
        graph.node.insert(0, helper.make_node("Cast", [name], [f"{name}_converted"], to=code))
    return model


def build(model: Path, flags: Sequence[Any] = (), name: str | None = None) -> Path:
    """The plan of a model."""
    plan = model.with_suffix(".plan") if name is None else model.with_name(name)
    _run("build", model, "-o", plan, "-q", *flags)
    return plan


def wall_ms(plan: Path, flags: Sequence[Any], seconds: float) -> float:
    """Milliseconds of wall time over the inferences in it."""
    document = miniinfer("run", plan, *flags, "--duration", seconds, "--iterations", 3, "--json", "-")
    return 1e3 / document["throughput_qps"]


def miniinfer(*arguments: Any) -> dict[str, Any]:
    """The JSON document that a command writes."""
    document: dict[str, Any] = json.loads(_run(*arguments))
    return document


def _run(*arguments: Any) -> str:
    command = [sys.executable, "-m", "miniinfer_cli", *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def told(row: dict[str, Any]) -> str:
    """A line on one advice."""
    return f"{row['advice']}: claimed {100 * row['claimed']:.0f} %, saved {100 * row['saved']:.0f} %, ratio {row['ratio']:.2f}"


def print_total(rows: Sequence[dict[str, Any]], wrong: int) -> None:
    """How many claims held, and whether any made it slower."""
    held = sum(0.7 <= r["ratio"] <= 1.3 for r in rows)
    slower = [f"{r['model']}: {r['advice']}" for r in rows if r["saved"] < -SLOWER]
    print(
        f"{held} of {len(rows)} claims within 0.7 to 1.3; slower by over 3 %: {', '.join(slower) or 'none'}; wrong kinds: {wrong}"
    )


if __name__ == "__main__":
    sys.exit(main())
