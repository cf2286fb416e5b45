"""Speed on the CPU beside ONNX Runtime: both in one process, in turns, on the same random inputs; medians, warm.

    python -m tests.benchmarks.cpu [--threads 2] [--runs 15] [--model NAME ...] [--json FILE]

Both sides get ``--threads`` threads. Outputs are compared before anything is timed. Also timed: the build, the first
result at a new shape beyond the inference itself, and the cost of importing the package.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

MODELS = {"resnet50": {"image": (1, 3, 224, 224)}, "bert_base": {"input_ids": (1, 128)}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--model", action="append", choices=sorted(MODELS))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = [benchmark(name, options.threads, options.runs) for name in options.model or MODELS]
    imports = import_seconds()
    print_table(rows)
    print(f"\nimport miniinfer_cli: {imports * 1e3:.0f} ms beyond Python and numpy")
    if options.json:
        options.json.write_text(json.dumps({"models": rows, "import_seconds": imports}, indent=2) + "\n")


def benchmark(name: str, threads: int, runs: int) -> dict[str, Any]:
    import numpy as np
    import onnxruntime

    import miniinfer_cli
    from miniinfer_cli.builder.building import build_plan
    from miniinfer_cli.builder.options import BuildOptions
    from miniinfer_cli.runtime.random_inputs import random_inputs

    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [sys.executable, "-m", "sample_models", name, "-o", folder, "--batch", "dynamic", "--seq", "128"],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        (model,) = Path(folder).glob("*.onnx")
        started = time.perf_counter()
        build_plan(model, Path(folder) / "model.plan", BuildOptions())
        build_s = time.perf_counter() - started
        session_options = onnxruntime.SessionOptions()
        session_options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(str(model), session_options, providers=["CPUExecutionProvider"])
        with miniinfer_cli.load(Path(folder) / "model.plan", "cpu", threads=threads) as engine:
            feeds = random_inputs(engine.inputs, engine.ranges, {}, {}, seed=int(time.time()))
            names = [b.name for b in engine.outputs]
            expected = session.run(names, feeds)
            got = engine.run(feeds)
            error = max(float(np.linalg.norm(got[n] - e) / np.linalg.norm(e)) for n, e in zip(names, expected, strict=True))
            ours, theirs = [], []
            for _ in range(runs):
                theirs.append(timed(lambda: session.run(names, feeds)))
                ours.append(timed(lambda: engine.run(feeds)))
            other = random_inputs(
                engine.inputs, engine.ranges, {engine.inputs[0].name: _twice(feeds, engine.inputs[0].name)}, {}, seed=1
            )
            first = timed(lambda: engine.run(other))
            again = statistics.median(timed(lambda: engine.run(other)) for _ in range(5))
    return {
        "model": name, "build_s": build_s, "error": error, "ours_ms": statistics.median(ours) * 1e3,
        "onnxruntime_ms": statistics.median(theirs) * 1e3, "ratio": statistics.median(ours) / statistics.median(theirs),
        "new_shape_s": first - again,
    }  # fmt: skip


def import_seconds() -> float:
    """Seconds that importing the package takes beyond Python and numpy, the least of five fresh processes each."""
    code = "import time, numpy; t = time.perf_counter(); import miniinfer_cli; print(time.perf_counter() - t)"
    return min(
        float(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout) for _ in range(5)
    )


def timed(call: Any) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def print_table(rows: list[dict[str, Any]]) -> None:
    print(f"{'model':<12}{'build s':>9}{'error':>10}{'ours ms':>10}{'ort ms':>9}{'ratio':>8}{'new shape s':>13}")
    for r in rows:
        print(
            f"{r['model']:<12}{r['build_s']:>9.2f}{r['error']:>10.1e}{r['ours_ms']:>10.1f}{r['onnxruntime_ms']:>9.1f}"
            f"{r['ratio']:>8.2f}{r['new_shape_s']:>13.3f}"
        )


def _twice(feeds: dict[str, Any], name: str) -> tuple[int, ...]:
    batch, *rest = feeds[name].shape
    return (2 * batch, *rest)


if __name__ == "__main__":
    main()
