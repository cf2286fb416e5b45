"""Networks of torchvision in f16: how far from PyTorch in f64, beside PyTorch's own f16 on the same device.

The error of one draw of weights is chance: MobileNetV3-large has 0.75 to 1.95 times PyTorch's own in six draws, and 0.99 times
when their squares are averaged. So several draws are, for both.
"""

from pathlib import Path

import numpy as np

from tests.benchmarks import torch_models

BATCH = 8  # images, over which one error is taken: those of single images differ by a factor of two
DRAWS = 4
"""Of weights and images, over which squared errors are averaged."""
LIMIT = 1.5
"""What our error may be, in PyTorch's own."""
# With and without squeeze and excite, depthwise, grouped and dense convolutions, batch and layer normalization.
NETWORKS = (
    "convnext_tiny", "densenet121", "efficientnet_b0", "efficientnet_v2_s", "mnasnet1_0", "mobilenet_v2", "mobilenet_v3_large",
    "mobilenet_v3_small", "regnet_x_400mf", "regnet_y_400mf", "resnet18", "resnet50", "shufflenet_v2_x1_0", "vit_b_16",
)  # fmt: skip


def compare(name: str, device: str, path: Path) -> tuple[str, str]:
    """The outcome for the network ``name``, and a line about it. Exports to ``path``."""
    errors = np.array([_errors(name, device, path, draw) for draw in range(DRAWS)])
    ours, theirs = np.sqrt(np.square(errors).mean(axis=0))
    ratios = errors[:, 0] / errors[:, 1]
    text = f"error {ours:.1e} in f16 (PyTorch's own {theirs:.1e}), {ratios.min():.2f} to {ratios.max():.2f} times it by the draw"
    return ("agree" if ours <= LIMIT * theirs else "wrong"), text


def _errors(name: str, device: str, path: Path, draw: int) -> tuple[float, float]:
    """Our relative error, and PyTorch's own."""
    import torch

    import miniinfer_cli

    torch_models.export(name, "f16", path, draw)
    on = torch.device(device if device.startswith("cuda") else "cpu")
    with torch.inference_mode():
        model, feeds = torch_models.make(name, BATCH, draw)
        exact = model.double().to(on)(*(v.double().to(on) for v in feeds.values())).cpu().numpy()
        model, feeds = torch_models.in_dtype(*torch_models.make(name, BATCH, draw), "f16")
        own = model.to(on)(*(v.to(on) for v in feeds.values())).cpu().numpy()
    plan = miniinfer_cli.build(path)
    with miniinfer_cli.load(plan, device) as engine:
        got = next(iter(engine.run({k: torch_models.to_numpy(v) for k, v in feeds.items()}).values()))
    ours, theirs = (float(np.linalg.norm(y.astype(np.float64) - exact) / np.linalg.norm(exact)) for y in (got, own))
    return ours, theirs
