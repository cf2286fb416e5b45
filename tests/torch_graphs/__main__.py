"""Every network beside PyTorch, then what is refused and what changes. Fails where results or reasons are others."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import nn

from miniinfer_cli.errors import UsageError
from miniinfer_cli.torch_backend.reasons import taken
from tests.torch_graphs.networks import NETWORKS

BACKEND: Any = "miniinfer"


@contextmanager
def counted(**expected: int) -> Iterator[None]:
    """What is built and refused within is exactly this."""
    taken.clear()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        yield
    assert dict(taken) == expected, (dict(taken), expected)
    ours = [str(w.message) for w in told if "a graph runs eagerly" in str(w.message)]
    assert len(ours) == sum(n for word, n in expected.items() if word != "built"), ours


def equal(one: Any, other: Any) -> None:
    if isinstance(other, dict):
        assert list(one) == list(other)
        one, other = list(one.values()), list(other.values())
    for a, b in zip(one, other, strict=True) if isinstance(other, (tuple, list)) else [(one, other)]:
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def compiled(model: nn.Module, **more: Any) -> Callable[..., Any]:
    torch._dynamo.reset()
    return torch.compile(model, backend=BACKEND, **more)


def networks() -> None:
    """Three calls each: one that builds, two that the plan computes."""
    for name, make in NETWORKS.items():
        torch.manual_seed(1)
        model = make().eval()
        run = compiled(model)
        with torch.inference_mode(), counted(built=1):
            for _ in range(3):
                x = torch.randn(2, 3, 32, 32)
                equal(run(x), model(x))
        print(f"ok: {name}")


def sizes() -> None:
    """A second batch leaves the size open, and others need no further plan."""
    model = NETWORKS["resnet"]().eval()
    run = compiled(model)
    with torch.no_grad(), counted(built=2):
        for n in (2, 3, 3, 5, 8):
            x = torch.randn(n, 3, 32, 32)
            equal(run(x), model(x))


def weights() -> None:
    """Weights that change count, and so do those of another module in the place of one."""
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU()).eval()
    run = compiled(model)
    x = torch.randn(2, 4)
    with torch.no_grad(), counted(built=3):
        for change in (
            lambda: None,
            lambda: model[0].weight.mul_(2),
            lambda: model[0].load_state_dict({"weight": torch.eye(4), "bias": torch.ones(4)}),
        ):
            change()
            for _ in range(2):
                equal(run(x), model(x))
    with torch.no_grad(), counted(built=5, weights=1):
        for _ in range(8):
            model[0].bias.add_(1)
            equal(run(x), model(x))
            equal(run(x), model(x))


def refused() -> None:
    """Each reason by its word; results are PyTorch's all the same."""
    x = torch.randn(4, 4)
    model = nn.Linear(4, 4)
    with counted(gradients=1):
        compiled(model)(x).sum().backward()
    assert model.weight.grad is not None
    norm = nn.BatchNorm1d(4).train()
    run = compiled(norm)
    with torch.no_grad(), counted(writes=1):
        for _ in range(3):
            run(x)
    assert int(norm.num_batches_tracked) == 3
    with torch.no_grad(), counted(random=1):
        compiled(nn.Dropout(0.5).train())(x)

    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16), counted(autocast=1):
        assert compiled(nn.Linear(4, 4).eval())(x).dtype == torch.bfloat16

    class Inverse(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.linalg.eigvals(x).abs().sort().values

    with torch.no_grad(), counted(export=1):
        equal(compiled(Inverse())(x), Inverse()(x))

    class Picked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.table(x)

    picked = Picked().eval()
    run = compiled(picked)
    with torch.no_grad(), counted(built=1, run=1):
        equal(run(torch.tensor([1, 3])), picked(torch.tensor([1, 3])))
        with pytest.raises(IndexError):  # PyTorch's own
            run(torch.tensor([1, 9]))


def memory() -> None:
    """Inputs are read where they lie, and results are fresh each time."""
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU()).eval()
    run = compiled(model)
    seen = []
    with torch.inference_mode(), counted(built=2):
        x = torch.randn(3, 4)
        for n in range(4):
            x.fill_(n)
            seen.append((run(x), model(x)))
        for ours, theirs in seen:
            equal(ours, theirs)
        big = torch.randn(4, 3).t()
        equal(run(big), model(big))


def options() -> None:
    """Options of build() and load() go there; others are told."""
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU()).eval()
    x = torch.randn(2, 64)
    run = compiled(model, options={"precision": "bf16", "load": {"threads": 1}})
    with torch.inference_mode(), counted(built=1):
        run(x)
        assert 0 < (run(x) - model(x)).abs().max() < 0.1
    with torch.inference_mode(), pytest.raises(UsageError, match="precison"):
        compiled(model, options={"precison": "bf16"})(x)


def half_widths() -> None:
    """Tensors of 16 bits go in and out as they are."""
    for kind in (torch.float16, torch.bfloat16):
        model = nn.Sequential(nn.Linear(16, 8), nn.GELU()).eval().to(kind)
        run = compiled(model)
        with torch.inference_mode(), counted(built=1):
            for _ in range(2):
                x = torch.randn(2, 16).to(kind)
                y = run(x)
                assert y.dtype == kind
                torch.testing.assert_close(y, model(x), rtol=2e-2, atol=2e-2)


def main() -> None:
    """All of it."""
    names = torch._dynamo.list_backends()
    assert BACKEND in names, names
    for check in (networks, sizes, weights, refused, memory, options, half_widths):
        check()
        print(f"ok: {check.__name__}")


if __name__ == "__main__":
    main()
