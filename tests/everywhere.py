"""A model on both backends at optimization levels 0 and 2: one answer."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import parser

import miniinfer_cli
from miniinfer_cli.devices.opening import load
from miniinfer_cli.errors import ModelError
from miniinfer_cli.runtime.engine import Engine
from tests.backends.cuda.checked_runs import assert_same
from tests.emulation.engine import open_emulated


def parsed(text: str, *, opset: int = 16, ir_version: int = 8, **opsets: int) -> onnx.ModelProto:
    """The model of a graph in ONNX's text form."""
    imports = ", ".join(f'"{d}": {v}' for d, v in {"": opset, **opsets}.items())
    return parser.parse_model(f"<ir_version: {ir_version}, opset_import: [{imports}]>\n{text}")


def engines_everywhere(model: onnx.ModelProto, **options: Any) -> Iterator[Engine]:
    """The model built at levels 0 and 2, each opened on both backends, one after the other."""
    for level in (0, 2):
        plan = miniinfer_cli.build(model, opt_level=level, **options)
        for opened in (lambda p=plan: load(p, "cpu"), lambda p=plan: open_emulated(p)):
            with opened() as engine:
                yield engine


def outputs_everywhere(model: onnx.ModelProto, *feeds: Mapping[str, Any], **options: Any) -> list[dict[str, Any]]:
    """The outputs for each of ``feeds``; an AssertionError where backends or levels differ."""
    found = [[engine.run(f) for f in feeds] for engine in engines_everywhere(model, **options)]
    for others in found[1:]:
        for got, want in zip(others, found[0], strict=True):
            assert_same(got, want)
    return found[0]


def check_everywhere(model: onnx.ModelProto, *cases: tuple[Mapping[str, Any], Any], output: str = "y", **options: Any) -> None:
    """Each case is inputs and the value of ``output``: its type, shape and contents, on both backends at both levels."""
    for found, (_, expected) in zip(outputs_everywhere(model, *(f for f, _ in cases), **options), cases, strict=True):
        assert (found[output].dtype, found[output].shape) == (expected.dtype, expected.shape)
        np.testing.assert_allclose(found[output], expected, rtol=1e-5)


def fails_everywhere(model: onnx.ModelProto, feeds: Mapping[str, Any], match: str, **options: Any) -> None:
    """The model builds, and these inputs raise a ModelError of these words."""
    for engine in engines_everywhere(model, **options):
        with pytest.raises(ModelError, match=match):
            engine.run(feeds)
