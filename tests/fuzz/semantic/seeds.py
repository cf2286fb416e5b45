"""What cases are edited from: the ONNX suite's models with data, the exported fixtures, the digits network; plans of these."""

import functools
import os
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from miniinfer_cli.builder.building import build_plan
from miniinfer_cli.builder.options import BuildOptions
from miniinfer_cli.errors import MiniinferError
from tests.conformance.cases import all_cases

_FIXTURES = Path(__file__).parents[2] / "fixtures" / "models"
_DIGITS = Path(__file__).parents[3] / "sample_models" / "digits.onnx"
_LARGEST = 150_000  # bytes: a case of a larger one takes longer than it tells
_EXPORTED_SHARE = 0.08


@dataclass(frozen=True)
class Seed:
    """A sound model: its name, its bytes, and values of its inputs as far as there are any."""

    name: str
    data: bytes
    values: tuple[Any, ...] = ()

    def model(self) -> onnx.ModelProto:
        """The model, which the caller may change."""
        return onnx.ModelProto.FromString(self.data)


@functools.cache
def suite_models() -> tuple[Seed, ...]:
    """One for each case of the ONNX backend suite: mostly one node. Every process that forks should have called this."""
    made = []
    for case in all_cases():
        if case.kind == "real":  # their inputs are random, their networks large
            continue
        in_memory = isinstance(case.model, onnx.ModelProto)
        data = case.model.SerializeToString() if in_memory else Path(case.model).read_bytes()
        values = tuple(case.source.data_sets[0][0]) if in_memory and case.source.data_sets else ()
        if len(data) < _LARGEST:
            made.append(Seed(case.name, data, values))
    return tuple(made)


@functools.cache
def exported_models() -> tuple[Seed, ...]:
    """Whole networks, small ones."""
    files = [*sorted(p for p in _FIXTURES.glob("*.onnx") if p.stat().st_size < _LARGEST), _DIGITS]
    return tuple(Seed(p.stem, p.read_bytes()) for p in files)


def any_model(rng: random.Random) -> Seed:
    """One of them all; those of the suite are many and quick, so most are from there."""
    return rng.choice(exported_models() if rng.random() < _EXPORTED_SHARE else suite_models())


def tensors_of(seed: Seed, graph: onnx.GraphProto) -> dict[str, onnx.TensorProto]:
    """The values of the seed's inputs that are tensors, by name."""
    arrays = {v.name: x for v, x in zip(graph.input, seed.values, strict=False) if isinstance(x, np.ndarray)}
    return {name: numpy_helper.from_array(array, name) for name, array in arrays.items()}


def sound_plan(rng: random.Random, kept: Path) -> bytes:
    """The file of a plan of any model at level 0 or 2; ``kept`` holds those that were built before."""
    while True:
        seed, level = any_model(rng), rng.choice((0, 2))
        path = kept / f"{seed.name}.{level}.plan"
        refused = path.with_suffix(".refused")
        if refused.exists():
            continue
        if not path.exists():
            beside = path.with_suffix(f".{os.getpid()}")
            try:
                build_plan(seed.data, beside, BuildOptions(opt_level=level))
            except MiniinferError:
                refused.touch()
                continue
            beside.replace(path)
        return path.read_bytes()
