"""One network of the zoo: exported, built, run, and compared with PyTorch in f64."""

import copy
import time
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from engine_format.dtypes import DType
from miniinfer_cli.verification import TOLERANCES
from tests.zoo import half, language, vision
from tests.zoo.entry import Entry, flat

LIMIT = 1e-5
OUTCOMES = ("agree", "not exported", "wrong")
_HALF = "f16/"


def names() -> list[str]:
    """All networks, those in f16 last."""
    return [*entries(), *(f"{_HALF}{name}" for name in half.NETWORKS)]


def entries() -> dict[str, Entry]:
    """All networks by name."""
    return vision.entries() | language.entries()


def compare(job: tuple[str, str, bool, str, str | None]) -> tuple[str, str]:
    """The outcome for one network, and a line about it.

    ``job``: its name, the device, whether by dynamo, a folder, and the type of 16 bits that it is built in, or None.
    """
    name, device, dynamo, folder, precision = job
    warnings.simplefilter("ignore")
    path = Path(folder) / f"{name.replace('/', '_')}.onnx"
    try:
        if name.startswith(_HALF):
            outcome, text = half.compare(name.removeprefix(_HALF), device, path)
        else:
            outcome, text = _compare(name, device, dynamo, path, precision)
    except Exception as error:  # whatever it is, the other networks are still to come
        place = traceback.extract_tb(error.__traceback__)[-1]
        outcome, text = "wrong", f"{type(error).__name__}: {error} ({Path(place.filename).name}:{place.lineno})"
    finally:
        for file in path.parent.glob(f"{path.stem}.*"):  # with weights beside it
            file.unlink()
    return outcome, f"{name}: {text}"


def _compare(name: str, device: str, dynamo: bool, path: Path, precision: str | None) -> tuple[str, str]:
    import torch

    import miniinfer_cli

    entry = entries()[name]
    torch.manual_seed(0)
    torch.set_num_threads(1)
    try:
        model, feeds = entry.make()
        with torch.inference_mode():
            single = [t.numpy() for t in flat(model(*feeds.values()))]
    except (ImportError, RuntimeError) as error:
        return "not exported", f"does not run in what is installed: {str(error).splitlines()[0]}"
    torch.backends.mha.set_fastpath_enabled(False)  # one operation that ONNX has no word for
    try:
        _export(torch, model, feeds, path, dynamo)
    except Exception as error:
        return "not exported", f"{type(error).__name__}: {str(error).splitlines()[0][:120] if str(error) else ''}"
    halved = None if precision is None else _halved(torch, model, feeds, precision, device)
    double = _double(torch, model, feeds, single)
    started = time.perf_counter()
    plan = miniinfer_cli.build(path, tf32=False, precision=precision)
    with miniinfer_cli.load(plan, device) as engine:
        given = {b.name: feeds[b.name].numpy() for b in engine.inputs}
        outputs = list(engine.run(given).values())
        first_s = time.perf_counter() - started
        for _ in range(2):  # captured, and replayed
            outputs = list(engine.run(given).values())
        hosted = [s.kind for s in engine.program(engine.check(given)).host_steps]
    errors = [_error(*_prepared(entry, got, want)) for got, want in zip(outputs, double, strict=False)][: _compared(entry)]
    theirs = single if halved is None else halved
    own = [_error(*_prepared(entry, got, want)) for got, want in zip(theirs, double, strict=False)][: _compared(entry)]
    if precision is None:
        wrong = any(not e <= max(LIMIT, 4 * o) for e, o in zip(errors, own, strict=True))
    else:  # where PyTorch's own has no number, the weights are no weights for 16 bits
        limit = TOLERANCES[DType(precision)]
        wrong = any(not e <= max(limit, half.LIMIT * o) for e, o in zip(errors, own, strict=True) if np.isfinite(o))
    wrong = wrong or len(outputs) != len(single)
    on_host = f", {len(hosted)} host steps" if hosted else ""
    on_host += f", {len(plan.report.options['kept_fp32'])} nodes in f32" if precision else ""
    text = f"error {max(errors):.1e} (PyTorch's own {max(own):.1e}), first result after {first_s:.1f} s{on_host}"
    return ("wrong" if wrong else "agree"), text


def _export(torch: Any, model: Any, feeds: dict[str, Any], path: Path, dynamo: bool) -> None:
    if dynamo:
        torch.onnx.export(model, tuple(feeds.values()), str(path), input_names=list(feeds), dynamo=True, verbose=False)
        return
    batch = {k: {0: "batch"} for k, v in feeds.items() if v.dim() != 3 or k != "image"}
    torch.onnx.export(
        model, tuple(feeds.values()), str(path), input_names=list(feeds), dynamic_axes=batch, opset_version=17, dynamo=False
    )


def _double(torch: Any, model: Any, feeds: dict[str, Any], single: Sequence[Any]) -> list[Any]:
    """PyTorch's outputs in f64, or in f32 where it cannot."""
    try:
        with torch.inference_mode():
            wide = {k: v.double() if v.is_floating_point() else v for k, v in feeds.items()}
            return [t.numpy() for t in flat(model.double()(*wide.values()))]
    except RuntimeError:
        return list(single)


def _halved(torch: Any, model: Any, feeds: dict[str, Any], precision: str, device: str) -> list[Any] | None:
    """PyTorch's outputs in 16 bits; None where it cannot."""
    kind, on = {"f16": torch.float16, "bf16": torch.bfloat16}[precision], device if device.startswith("cuda") else "cpu"
    try:
        with torch.inference_mode():
            narrow = {k: (v.to(kind) if v.is_floating_point() else v).to(on) for k, v in feeds.items()}
            return [t.float().cpu().numpy() for t in flat(copy.deepcopy(model).to(kind).to(on)(*narrow.values()))]
    except RuntimeError:
        return None


def _compared(entry: Entry) -> int | None:
    return 1 if entry.ranked else None


def _prepared(entry: Entry, got: Any, want: Any) -> tuple[Any, Any]:
    return (-np.sort(-got), -np.sort(-want)) if entry.ranked else (got, want)


def _error(got: Any, want: Any) -> float:
    if got.shape != want.shape:
        return float("inf")
    size = float(np.linalg.norm(want.astype(np.float64)))
    return float(np.linalg.norm(got.astype(np.float64) - want)) / (size or 1.0)
