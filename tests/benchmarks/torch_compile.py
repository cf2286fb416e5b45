"""``torch.compile(backend="miniinfer")`` beside eager PyTorch and beside the plan alone, on a GPU.

    python -m tests.benchmarks.torch_compile [--device cuda] [--small]

ResNet-50 (torchvision) and BERT-base (transformers) in f16: milliseconds of a call with a wait, the median of many; of a call
in a row of them with one wait; and the largest difference from eager. ``guards`` is what PyTorch takes around any graph;
``plan`` is the same engine alone, with inputs that lie on the GPU and outputs that stay there.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

from miniinfer_cli.torch_backend import backend
from miniinfer_cli.torch_backend.contexts import Runner
from miniinfer_cli.torch_backend.reasons import taken


def resnet(small: bool) -> tuple[Any, tuple[Any, ...]]:
    from torchvision.models import resnet18, resnet50

    size = 64 if small else 224
    return (resnet18 if small else resnet50)(weights=None), (torch.randn(1, 3, size, size),)


def bert(small: bool) -> tuple[Any, tuple[Any, ...]]:
    from transformers import BertConfig, BertModel

    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128} if small else {}
    model = BertModel(BertConfig(return_dict=False, **sizes), add_pooling_layer=False)
    return model, (torch.randint(0, 1000, (1, 128)),)


def median_ms(call: Callable[[], Any], device: str) -> float:
    times = []
    for _ in range(20 if device == "cpu" else 300):
        started = time.perf_counter()
        call()
        if device != "cpu":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return float(np.median(times[len(times) // 5 :]) * 1e3)


def queued_ms(call: Callable[[], Any], device: str) -> float:
    """Of a call in a row of them with one wait at its end."""
    rows = []
    for _ in range(5):
        started = time.perf_counter()
        for _ in range(5 if device == "cpu" else 60):
            call()
        if device != "cpu":
            torch.cuda.synchronize()
        rows.append((time.perf_counter() - started) / (5 if device == "cpu" else 60))
    return float(np.median(rows) * 1e3)


def measure(name: str, make: Callable[[bool], tuple[Any, tuple[Any, ...]]], device: str, small: bool) -> None:
    torch.manual_seed(0)
    kind = torch.float32 if device == "cpu" else torch.float16
    model, inputs = make(small)
    model = model.eval().to(device, kind)
    inputs = tuple(x.to(device, kind) if x.is_floating_point() else x.to(device) for x in inputs)
    runners: list[Any] = []

    def noted(engine: Any) -> Any:
        runners.append(Runner(engine))
        return runners[-1]

    with patch.object(backend, "Runner", noted):
        torch._dynamo.reset()
        taken.clear()
        compiled = torch.compile(model, backend=backend.compile_graph)
        with torch.inference_mode():
            started = time.perf_counter()
            compiled(*inputs)
            built_s = time.perf_counter() - started
            one, other = compiled(*inputs), model(*inputs)
            first, second = (y[0] if isinstance(y, tuple) else y for y in (one, other))
            difference = float((first - second).abs().max())
            eager = median_ms(lambda: model(*inputs), device)
            ours = median_ms(lambda: compiled(*inputs), device)
            eager_queued, ours_queued = (queued_ms(partial(f, *inputs), device) for f in (model, compiled))
            plan = plan_queued = float("nan")
            if runners:
                context = runners[0].engine.create_context()
                feeds = {f"x{n}": x for n, x in enumerate(inputs) if n < len(runners[0].engine.inputs)}
                plan = median_ms(lambda: context.enqueue(feeds, on_device=True).result(), device)
                plan_queued = queued_ms(lambda: context.enqueue(feeds, on_device=True), device)
    torch._dynamo.reset()
    nothing = torch.compile(model, backend=lambda graph, examples: lambda *values, kept=first: (kept,))
    with torch.inference_mode():
        guards = median_ms(lambda: nothing(*inputs), device)
    print(
        f"{name}: eager {eager:.3f} ms, compiled {ours:.3f} ms, plan {plan:.3f}; in a row {eager_queued:.3f}, {ours_queued:.3f}, "
        f"{plan_queued:.3f}; guards {guards:.3f}, built in {built_s:.1f} s, difference {difference:.1e}, {dict(taken)}"
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true")
    options = parser.parse_args()
    for name, make in (("resnet50", resnet), ("bert", bert)):
        try:
            measure(name, make, options.device, options.small)
        except ImportError as error:
            print(f"{name}: {error}")


if __name__ == "__main__":
    main()
