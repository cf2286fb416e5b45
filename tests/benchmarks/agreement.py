"""How often a ResNet-50 of 8 bits names the same class as in f32, on the CPU.

    python -m tests.benchmarks.agreement [--types int8 fp8] [--methods mse minmax] [--keep NAME ...] [--samples 256] [--small]

Weights are random, so the 1000 classes of its last layer are nearly alike for all images, and the largest is one of near ties:
``largest`` counts how often that is the same. ``readout``: ten kinds of images, told apart by a linear function of the outputs
less their mean, which is fitted in f32: what varies is what counts there. ``off``: the relative error; ``of what varies``: the
same error over the outputs less their mean. 256 samples take about five minutes on two processors.
"""

import argparse
from typing import Any

import numpy as np

import miniinfer_cli
from sample_models.catalogue import generate
from sample_models.request import Request

_BATCH = 8
_FITTED, _CALIBRATED = 200, 32


def main() -> None:
    """A line for each type and method."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--types", nargs="+", default=["int8"], choices=["int8", "fp8"])
    parser.add_argument("--methods", nargs="+", default=["mse"])
    parser.add_argument("--keep", nargs="+", default=[], help="nodes or operations that keep f32")
    parser.add_argument("--samples", type=int, default=256)
    parser.add_argument("--small", action="store_true", help="the small network, of 64 pixels")
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    kinds = rng.standard_normal((10, 3, 8, 8))
    model = generate("resnet50", Request(small=args.small))

    def images(count: int) -> tuple[Any, Any]:
        labels = rng.integers(0, 10, count)
        coarse = kinds[labels] + 0.15 * rng.standard_normal((count, 3, 8, 8))
        size = 8 if args.small else 28
        return coarse.repeat(size, 2).repeat(size, 3).astype(np.float32), np.eye(10)[labels]

    (fitted, wanted), (tried, _) = images(_FITTED), images(args.samples)
    exact = miniinfer_cli.build(model)
    known, expected = outputs(exact, fitted), outputs(exact, tried)
    mean = known.mean(axis=0)
    spread = known - mean
    gram = spread.T @ spread
    readout = np.linalg.solve(gram + 1e-4 * np.trace(gram) / 10 * np.eye(len(gram)), spread.T @ wanted)
    told = ((expected - mean) @ readout).argmax(axis=1)
    for kind in args.types:
        for method in args.methods:
            options: dict[str, Any] = {kind: True, "calibration_method": method, "keep_float": args.keep}
            found = outputs(miniinfer_cli.build(model, calibrate=[fitted[:_CALIBRATED]], **options), tried)
            largest = np.mean(found.argmax(axis=1) == expected.argmax(axis=1))
            same = np.mean(((found - mean) @ readout).argmax(axis=1) == told)
            lost = np.linalg.norm(found - expected)
            print(
                f"{kind} {method}: readout {same:.4f}, largest {largest:.4f}, off {lost / np.linalg.norm(expected):.4f},"
                f" of what varies {lost / np.linalg.norm(expected - mean):.4f}",
                flush=True,
            )


def outputs(plan: Any, images: Any) -> Any:
    """What a plan gives for the images, some at a time."""
    with miniinfer_cli.load(plan, "cpu") as engine:
        name = engine.inputs[0].name
        parts = [images[i : i + _BATCH] for i in range(0, len(images), _BATCH)]
        return np.concatenate([next(iter(engine.run({name: part}).values())) for part in parts])


if __name__ == "__main__":
    main()
