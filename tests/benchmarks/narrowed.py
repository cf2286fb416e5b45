"""Plans of f32 exports that build narrows, beside plans of f16 exports: steps, times and errors, on one GPU, in turns.

    python -m tests.benchmarks.narrowed [--model NAME ...] [--batch 1 64 ...] [--out FOLDER]

The error is against PyTorch in f64; beside it stands PyTorch's own in f16 and bf16. "Wall per inference" as in gpu.py.
"""

import argparse
import json
import statistics
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tests.benchmarks import torch_models
from tests.benchmarks.beside_torch import Replays, error_of, export_all, wall

ROUNDS = 5
WAYS: dict[str, tuple[str, dict[str, Any]]] = {
    "f16 export": ("f16", {}),
    "--fp16": ("f32", {"precision": "f16"}),
    "--fp16 --io-dtype f16": ("f32", {"precision": "f16", "io_types": {"*": "f16"}}),
    "--bf16": ("f32", {"precision": "bf16"}),
    "TF32": ("f32", {}),
}
"""The export, and what it is built with."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="+", default=["bert_base", "resnet50"])
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 64])
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--out", type=Path, default=Path("build/benchmarks"))
    options = parser.parse_args()
    folder = options.out / "exports"
    folder.mkdir(parents=True, exist_ok=True)
    export_all(options.model, ["f16", "f32"], folder)
    rows = []
    for name in options.model:
        for batch in options.batch:
            rows += [{"model": name, "batch": batch, **row} for row in compare(name, batch, folder, options.device)]
            for row in rows[-len(WAYS) - 2 :]:
                told = "" if "ms" not in row else f" {row['ms']:.4f} ms, {row['steps']} steps,"
                print(f"{name} b{batch} {row['way']}:{told} error {row['error']:.2e}", flush=True)
            (options.out / "narrowed.json").write_text(json.dumps(rows, indent=2) + "\n")


def compare(name: str, batch: int, folder: Path, device: str) -> list[dict[str, Any]]:
    """A row for each way, and two for PyTorch's own errors."""
    import torch

    on = torch.device("cuda" if device.startswith("cuda") else "cpu")
    with torch.inference_mode():
        model, feeds = torch_models.make(name, batch)
        exact_feeds = {k: v.double() if v.is_floating_point() else v for k, v in feeds.items()}
        exact = torch_models.first(model.double().to(on)(*(v.to(on) for v in exact_feeds.values()))).double().cpu().numpy()
        own = []
        for dtype in ("f16", "bf16"):
            halved, halved_feeds = torch_models.in_dtype(*torch_models.make(name, batch), dtype)
            got = torch_models.first(halved.to(on)(*(v.to(on) for v in halved_feeds.values()))).double().cpu().numpy()
            own.append({"way": f"PyTorch's own {dtype}", "error": error_of(got, exact)})
    del model, halved
    arrays = {k: torch_models.to_numpy(v) for k, v in feeds.items()}
    return [*measure(name, folder, arrays, exact, device), *own]


def measure(name: str, folder: Path, arrays: dict[str, Any], exact: Any, device: str) -> list[dict[str, Any]]:
    """A row for each way: median of rounds in turns, steps, and the error of the first output."""
    import numpy as np

    import miniinfer_cli

    rows: list[dict[str, Any]] = []
    times: dict[str, list[float]] = {}
    replays: dict[str, Replays] = {}
    with ExitStack() as stack:
        for way, (exported, built) in WAYS.items():
            plan = miniinfer_cli.build(folder / f"{name}_{exported}.onnx", **built)
            engine = stack.enter_context(miniinfer_cli.load(plan, device))
            given = {b.name: arrays[b.name].astype(b.dtype) for b in engine.inputs}
            got = next(iter(engine.run(given).values())).astype(np.float64)
            checked = engine.check(given)
            program, kept = engine.program(checked), plan.report.options.get("kept_fp32", ())
            assert isinstance(kept, tuple)
            context = stack.enter_context(engine.create_context())
            for _ in range(4):
                context.start(list(checked), transfers=False).result()
            replays[way], times[way] = Replays(context, checked), []
            rows.append({
                "way": way, "error": error_of(got, exact), "steps": len(program.steps), "host_steps": len(program.host_steps),
                "kept": len(kept),
            })  # fmt: skip
        for _ in range(ROUNDS):
            for way, replay in replays.items():
                times[way].append(wall(replay.start, replay.wait))
    return [{**row, "ms": statistics.median(times[row["way"]])} for row in rows]


if __name__ == "__main__":
    main()
