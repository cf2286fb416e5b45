"""Speed on a GPU beside PyTorch: the same model, exported by PyTorch, in one process on the same machine; medians, warm.

    python -m tests.benchmarks.gpu [--model NAME ...] [--dtype f16 tf32 ...] [--batch 1 64 ...] [--out FOLDER]

"Wall per inference" is K enqueues back to back and one wait, divided by K, with inputs and outputs on the device: PyTorch
eager, PyTorch in a CUDA graph, and miniinfer replaying its captured graph. Outputs are compared with PyTorch's in f32
without TF32 before anything is timed; beside the error stands PyTorch's own in the same precision.
"""

import argparse
import json
import statistics
import time
from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import Any

from miniinfer_cli.runtime.context import Context
from tests.benchmarks import torch_models
from tests.benchmarks.beside_torch import Replays, captured, error_of, export_all, on_the_gpu, wall

DTYPES = ("f16", "tf32")
NETWORKS = ("bert_base", "gpt2", "mobilenet_v2", "resnet50", "vit_b_16")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="+", default=list(NETWORKS), help="of these, or of torchvision's")
    parser.add_argument("--dtype", nargs="+", choices=("f16", "bf16", "tf32", "f32"), default=list(DTYPES))
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 64])
    parser.add_argument("--out", type=Path, default=Path("build/benchmarks"))
    parser.add_argument("--errors", action="store_true", help="compare outputs only, and time nothing")
    parser.add_argument("--top", type=int, default=6, help="slowest kinds of steps to show")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    folder = options.out / "exports"
    folder.mkdir(exist_ok=True)
    started = time.perf_counter()
    missing = export_all(options.model, options.dtype, folder)
    print(f"exports: {time.perf_counter() - started:.0f} s", flush=True)
    rows = []
    for name in options.model:
        for dtype in options.dtype:
            if (name, torch_models.EXPORTED[dtype]) in missing:
                continue
            for batch in options.batch:
                if options.errors:
                    print(
                        f"{name} {dtype} b{batch}: error %.1e (torch's own %.1e)" % errors(name, dtype, batch, folder), flush=True
                    )
                    continue
                rows.append(benchmark(name, dtype, batch, folder, options.top))
                print(line_of(rows[-1]), flush=True)
                (options.out / "gpu.json").write_text(json.dumps(rows, indent=2) + "\n")
                (options.out / "gpu.md").write_text(table_of(rows))
    if options.errors:
        return
    print(table_of(rows))


def benchmark(name: str, dtype: str, batch: int, folder: Path, top: int) -> dict[str, Any]:
    """One row: errors and times in ms."""
    import numpy as np
    import torch

    import miniinfer_cli

    exported = torch_models.EXPORTED[dtype]
    torch_model, torch_feeds, reference = on_the_gpu(name, batch, dtype)
    row: dict[str, Any] = {"model": name, "dtype": dtype, "batch": batch, "device": torch.cuda.get_device_name()}
    with torch.inference_mode():
        row["torch_error"] = error_of(torch_models.first(torch_model(**torch_feeds)).double().cpu().numpy(), reference)
        row["torch_eager_ms"] = wall(partial(torch_model, **torch_feeds), torch.cuda.synchronize)
        row["torch_graph_ms"] = wall(captured(torch, torch_model, torch_feeds), torch.cuda.synchronize)
    arrays = {k: torch_models.to_numpy(v) for k, v in torch_feeds.items()}
    del torch_model
    torch.cuda.empty_cache()
    plan = folder / f"{name}_{dtype}.plan"
    started = time.perf_counter()
    miniinfer_cli.build(folder / f"{name}_{exported}.onnx", plan, tf32=dtype != "f32")
    row["build_s"] = time.perf_counter() - started
    started = time.perf_counter()
    with miniinfer_cli.load(plan, "cuda:0") as engine:
        row["load_s"] = time.perf_counter() - started
        started = time.perf_counter()
        outputs = engine.run(arrays)
        row["first_result_s"] = time.perf_counter() - started
        row["error"] = error_of(next(iter(outputs.values())).astype(np.float64), reference)
        checked = engine.check(arrays)
        program = engine.program(checked)
        row["steps"] = len(program.steps)
        row["host_steps"] = [s.label for s in program.host_steps]
        with engine.create_context() as context:
            for _ in range(6):
                context.run_arrays(list(checked))
            for _ in range(4):
                context.start(list(checked), transfers=False).result()
            replay = Replays(context, checked)
            row["ours_ms"] = wall(replay.start, replay.wait)
            row["ours_wait_each_ms"] = wall(replay.start_and_wait, replay.wait)
            enqueues = [context.start(list(checked), transfers=False) for _ in range(200)]
            enqueues[-1].wait()
            row["enqueue_us"] = statistics.median(p.enqueue_ns for p in enqueues) / 1e3
            row["top"] = _top(context, program, checked, top)
    return row


def errors(name: str, dtype: str, batch: int, folder: Path) -> tuple[float, float]:
    """Ours and PyTorch's, against PyTorch in f32 without TF32."""
    import numpy as np
    import torch

    import miniinfer_cli

    exported = torch_models.EXPORTED[dtype]
    torch_model, torch_feeds, reference = on_the_gpu(name, batch, dtype)
    with torch.inference_mode():
        theirs = error_of(torch_models.first(torch_model(**torch_feeds)).double().cpu().numpy(), reference)
    plan = folder / f"{name}_{dtype}_errors.plan"
    miniinfer_cli.build(folder / f"{name}_{exported}.onnx", plan, tf32=dtype != "f32")
    with miniinfer_cli.load(plan, "cuda:0") as engine:
        outputs = engine.run({k: torch_models.to_numpy(v) for k, v in torch_feeds.items()})
    return error_of(next(iter(outputs.values())).astype(np.float64), reference), theirs


def _top(context: Context, program: Any, checked: list[Any], count: int) -> list[dict[str, Any]]:
    """The kinds of steps that take longest, each replayed from a graph between two events, those that work in place but once."""
    runs: list[list[int]] = []
    for _ in range(5):
        times: list[int] = []
        context.run_arrays(list(checked), times)
        runs.append(times)
    medians = [statistics.median(t) / 1e3 for t in zip(*runs, strict=True)]
    kinds: dict[tuple[str, str], list[float]] = defaultdict(list)
    for step, us in zip(program.steps, medians, strict=True):
        kinds[(step.kind, step.tactic)].append(us)
    slowest = sorted(kinds.items(), key=lambda item: -sum(item[1]))[:count]
    return [{"kind": k, "tactic": t, "count": len(us), "us": round(sum(us), 1)} for (k, t), us in slowest]


def line_of(row: dict[str, Any]) -> str:
    slow = "; ".join(f"{t['count']}x {t['kind']} [{t['tactic']}] {t['us']}" for t in row["top"])
    return (
        f"{row['model']} {row['dtype']} b{row['batch']}: eager {row['torch_eager_ms']:.3f} graph {row['torch_graph_ms']:.3f}"
        f" ours {row['ours_ms']:.3f} (wait each {row['ours_wait_each_ms']:.3f}) ms, enqueue {row['enqueue_us']:.1f} us,"
        f" error {row['error']:.1e} (torch {row['torch_error']:.1e}), steps {row['steps']}, host {row['host_steps']},"
        f" build {row['build_s']:.2f} load {row['load_s']:.2f} first {row['first_result_s']:.2f} s | us by kind: {slow}"
    )


def table_of(rows: list[dict[str, Any]]) -> str:
    head = (
        "| model, precision | batch | eager | graph | miniinfer | waiting | x graph | error (torch's) | steps |\n"
        + "|---" * 9
        + "|\n"
    )
    return head + "".join(
        f"| {r['model']} {r['dtype']} | {r['batch']} | {r['torch_eager_ms']:.3f} | {r['torch_graph_ms']:.3f} |"
        f" {r['ours_ms']:.3f} | {r['ours_wait_each_ms']:.3f} | {r['torch_graph_ms'] / r['ours_ms']:.2f} |"
        f" {r['error']:.1e} ({r['torch_error']:.1e}) | {r['steps']} |\n"
        for r in rows
    )


if __name__ == "__main__":
    main()
