"""SimpleCNN at batch 1 in five ways: PyTorch eager, TorchScript, torch.compile, ONNX Runtime and miniinfer.

    python -m tests.benchmarks.case_study [--device cuda|cpu] [--dtype f32 f16] [--batch 1] [--out FILE]

The network of ``sample_models`` (two convolutions with pools, two linear layers, images of 32 x 32), the same weights in all,
exported by PyTorch. Milliseconds of a call, medians over rounds, each way in turn within one process: *resident*, K calls back to
back on tensors that lie on the device, and one wait; and *with transfers*, calls one by one, from an array of the host (pinned
memory for PyTorch) to one. ONNX Runtime runs on its CUDA provider, where it has one. f32 is computed as TF32 by all. Exit code 1
where results differ from eager's in f64 by more than 1e-2, or a way that is there cannot run.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

import miniinfer_cli
from tests.benchmarks.beside_torch import Replays, error_of

_ROUNDS, _ROUND_S = 7, 0.05
_TOLERANCE = 1e-2
_NUMPY = {"f32": np.float32, "f16": np.float16}


@dataclass(frozen=True, slots=True)
class Row:
    """A way: ms of a call on the device, and from host to host; None where it has no such. ``error``: of the first result."""

    way: str
    dtype: str
    batch: int
    resident_ms: float | None
    transfers_ms: float | None
    error: float


@dataclass(frozen=True, slots=True)
class Way:
    """``transfers`` takes an array of the host and gives one. ``resident`` enqueues a call, whose end ``wait`` waits for."""

    transfers: Callable[[], Any]
    resident: Callable[[], Any] | None = None
    wait: Callable[[], None] = lambda: None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--dtype", nargs="+", default=["f32", "f16"], choices=tuple(_NUMPY))
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--out", type=Path, help="where the rows go as JSON")
    options = parser.parse_args()
    rows, failed = [], 0
    for dtype in options.dtype:
        with ExitStack() as stack:
            for row in measure(options.device, dtype, options.batch, stack):
                if isinstance(row, str):
                    print(row)
                    continue
                rows.append(row)
                failed += not row.error < _TOLERANCE
                resident, both = ("-" if ms is None else f"{ms:.4f}" for ms in (row.resident_ms, row.transfers_ms))
                print(f"{row.way}, {dtype}, batch {row.batch}: resident {resident}, transfers {both} ms, error {row.error:.1e}")
    if options.out:
        options.out.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")
    return 1 if failed else 0


def measure(device: str, dtype: str, batch: int, stack: ExitStack) -> list[Row | str]:
    """A row for each way, or why there is none."""
    import torch

    model = _network(torch).eval()
    image = torch.randn(batch, 3, 32, 32)
    with torch.inference_mode():
        exact = model.double()(image.double()).numpy()
    kind = {"f32": torch.float32, "f16": torch.float16}[dtype]
    model, image = model.to(kind), image.to(kind)
    path = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "simple_cnn.onnx"
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there is a newer exporter
        torch.onnx.export(
            model, (image,), str(path), input_names=["image"], output_names=["logits"], opset_version=17, dynamo=False
        )
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    ways: dict[str, Callable[[], Way]] = {
        "PyTorch eager": lambda: _torch_way(torch, model.to(device), image, device),
        "TorchScript": lambda: _torch_way(torch, _scripted(torch, model.to(device), image.to(device)), image, device),
        "torch.compile": lambda: _torch_way(torch, torch.compile(model.to(device)), image, device),
        "torch.compile, reduce-overhead": lambda: _torch_way(
            torch, torch.compile(model.to(device), mode="reduce-overhead"), image, device
        ),
        "ONNX Runtime": lambda: _onnxruntime_way(path, image.cpu().numpy(), device),
        "miniinfer": lambda: _miniinfer_way(path, image.cpu().numpy(), device, stack),
    }
    found: list[Row | str] = []
    ready: dict[str, Way] = {}
    errors: dict[str, float] = {}
    stack.enter_context(torch.inference_mode())
    for name, make in ways.items():
        try:
            way = make()
            errors[name] = error_of(np.asarray(way.transfers(), np.float64), exact)
        except Exception as error:  # what is not installed, or has no such device, is told and left out
            found.append(f"{name}, {dtype}: none: {type(error).__name__}: {str(error).strip().splitlines()[0][:200]}")
            continue
        ready[name] = way
    for name, times in timed(ready).items():
        found.append(Row(name, dtype, batch, *times, errors[name]))
    return found


def timed(ways: dict[str, Way]) -> dict[str, tuple[float | None, float]]:
    """Ms of each way, resident and with transfers: medians over rounds, in each of which all have their turns."""
    rounds: dict[str, list[list[float]]] = {name: [[], []] for name in ways}
    counts = {name: (_count(w.resident, w.wait), _count(w.transfers, w.wait)) for name, w in ways.items()}
    for _ in range(_ROUNDS):
        for name, way in ways.items():
            for kind, call in enumerate((way.resident, way.transfers)):
                if call is not None:
                    rounds[name][kind].append(_once(call, way.wait, counts[name][kind]))
    return {
        name: (statistics.median(resident) if resident else None, statistics.median(transfers))
        for name, (resident, transfers) in rounds.items()
    }


def _count(call: Callable[[], Any] | None, wait: Callable[[], None]) -> int:
    """Of calls that take about a round, after a few to warm up."""
    if call is None:
        return 0
    _once(call, wait, 10)
    return max(10, min(2000, int(_ROUND_S * 1e3 / max(_once(call, wait, 10), 1e-4))))


def _once(call: Callable[[], Any], wait: Callable[[], None], count: int) -> float:
    started = time.perf_counter()
    for _ in range(count):
        call()
    wait()
    return (time.perf_counter() - started) / count * 1e3


def _network(torch: Any) -> Any:
    """``sample_models.simple_cnn`` as a module, random weights."""
    torch.manual_seed(0)
    nn = torch.nn
    return nn.Sequential(
        *(nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(64 * 64, 128), nn.ReLU(), nn.Linear(128, 10)),
    )


def _scripted(torch: Any, model: Any, image: Any) -> Any:
    return torch.jit.optimize_for_inference(torch.jit.freeze(torch.jit.trace(model, image)))


def _torch_way(torch: Any, model: Any, image: Any, device: str) -> Way:
    on_device = image.to(device)
    if device == "cpu":
        return Way(lambda: model(on_device).numpy(), lambda: model(on_device))
    pinned = image.cpu().pin_memory()
    for _ in range(5):
        model(on_device)
    return Way(
        lambda: model(pinned.to(device, non_blocking=True)).cpu().numpy(), lambda: model(on_device), torch.cuda.synchronize
    )


def _onnxruntime_way(path: Path, image: Any, device: str) -> Way:
    import onnxruntime

    provider = {"cuda": "CUDAExecutionProvider", "cpu": "CPUExecutionProvider"}[device]
    if provider not in onnxruntime.get_available_providers():
        raise RuntimeError(f"this ONNX Runtime has no {provider}")
    session = onnxruntime.InferenceSession(str(path), providers=[provider])
    if device == "cpu":
        return Way(lambda: session.run(None, {"image": image})[0])
    binding = session.io_binding()
    binding.bind_ortvalue_input("image", onnxruntime.OrtValue.ortvalue_from_numpy(image, "cuda", 0))
    binding.bind_output("logits", "cuda")
    return Way(
        lambda: session.run(None, {"image": image})[0],
        lambda: session.run_with_iobinding(binding),
        binding.synchronize_outputs,
    )


def _miniinfer_way(path: Path, image: Any, device: str, stack: ExitStack) -> Way:
    engine = stack.enter_context(miniinfer_cli.load(miniinfer_cli.build(path), "cuda:0" if device == "cuda" else "cpu"))
    context = stack.enter_context(engine.create_context())

    def transfers() -> Any:
        return context.run({"image": image})["logits"]

    for _ in range(5):
        transfers()
    if device == "cpu":
        return Way(transfers)
    resident = stack.enter_context(engine.create_context())
    arrays = list(engine.check({"image": image}))
    for _ in range(4):
        resident.start(arrays, transfers=False).result()
    replays = Replays(resident, arrays)
    return Way(transfers, replays.start, replays.wait)


if __name__ == "__main__":
    sys.exit(main())
