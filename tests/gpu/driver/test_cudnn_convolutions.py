"""cuDNN's convolutions on the device against float64: one to three axes, with every epilogue."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from miniinfer_cli.backends.cuda.contract.problems import Activation, Compute
from miniinfer_cli.backends.cuda.driver.cudnn import Cudnn
from miniinfer_cli.backends.cuda.driver.device import Device
from miniinfer_cli.backends.cuda.driver.stream import Stream
from miniinfer_cli.ir import DType
from tests.gpu.driver.convolution_case import ConvolutionCase, convolution, transposed
from tests.gpu.driver.cudnn_calls import solve
from tests.gpu.driver.library_calls import run

F16, BF16, F32 = DType.F16, DType.BF16, DType.F32
Types = tuple[DType, Compute]
TYPES: list[Types] = [(F16, Compute.F32), (BF16, Compute.F32), (F32, Compute.TF32), (F32, Compute.F32)]

SHAPES: dict[str, tuple[Sequence[int], Sequence[int], int, dict[str, Any]]] = {
    "3x3": ((2, 14, 14, 32), (3, 3), 64, {"begin": (1, 1), "end": (1, 1)}),
    "1x1": ((3, 7, 9, 64), (1, 1), 128, {}),
    "strided": ((2, 15, 17, 32), (3, 3), 48, {"strides": (2, 2), "begin": (1, 1), "end": (1, 1)}),
    "asymmetric": ((2, 9, 12, 16), (2, 4), 32, {"strides": (1, 2), "begin": (0, 2), "end": (1, 1)}),
    "dilated": ((1, 20, 20, 16), (3, 3), 16, {"dilations": (2, 3), "begin": (2, 3), "end": (2, 3)}),
    "7x7": ((1, 32, 32, 8), (7, 7), 64, {"strides": (2, 2), "begin": (3, 3), "end": (3, 3)}),
    "1d": ((2, 50, 16), (5,), 32, {"begin": (2,), "end": (2,)}),
    "1d strided": ((2, 64, 8), (3,), 16, {"strides": (2,), "begin": (1,), "end": (0,)}),
    "3d": ((1, 6, 8, 10, 16), (3, 3, 3), 32, {"begin": (1, 1, 1), "end": (1, 1, 1)}),
}


@pytest.mark.parametrize("types", TYPES, ids="-".join)
@pytest.mark.parametrize("name", SHAPES)
def test_shapes(name: str, types: Types, device: Device, stream: Stream, cudnn: Cudnn):
    x_shape, kernel, out, options = SHAPES[name]
    plain = convolution(*types, x_shape, kernel, out, **options)
    solve(device, stream, cudnn, plain)
    # Fusion in true f32 is up to the library.
    exact = types == (F32, Compute.F32)
    solve(device, stream, cudnn, replace(plain, bias=True), may_refuse=exact)
    solve(device, stream, cudnn, replace(plain, bias=True, activation=Activation.RELU), may_refuse=exact)
    solve(device, stream, cudnn, replace(plain, bias=True, residual=True, activation=Activation.RELU), may_refuse=exact)


@pytest.mark.parametrize("types", TYPES, ids="-".join)
@pytest.mark.parametrize("activation", [Activation.NONE, Activation.RELU])
@pytest.mark.parametrize("residual", [False, True])
def test_what_follows_a_bias(activation: Activation, residual: bool, types: Types, device: Device, stream: Stream, cudnn: Cudnn):
    x_shape, kernel, out, options = SHAPES["3x3"]
    problem = convolution(*types, x_shape, kernel, out, **options, bias=True, residual=residual, activation=activation)
    solve(device, stream, cudnn, problem, may_refuse=types == (F32, Compute.F32))


@pytest.mark.parametrize("types", TYPES, ids="-".join)
@pytest.mark.parametrize(
    ("channels", "group", "out"), [(32, 2, 64), (64, 8, 64), (32, 32, 32), (16, 16, 32), (96, 96, 96)], ids=str
)
def test_groups(channels: int, group: int, out: int, types: Types, device: Device, stream: Stream, cudnn: Cudnn):
    same: dict[str, Any] = {"begin": (1, 1), "end": (1, 1)}
    plain = convolution(*types, (2, 13, 13, channels), (3, 3), out, group=group, **same)
    # Some groupings have engines for some types only; what is accepted has to be right.
    solve(device, stream, cudnn, plain, may_refuse=True)
    solve(device, stream, cudnn, replace(plain, bias=True, activation=Activation.RELU), may_refuse=True)


@pytest.mark.parametrize("types", TYPES, ids="-".join)
@pytest.mark.parametrize("channels", [(3, 64), (5, 7), (4, 10), (1, 1)], ids=str)
def test_channels_that_fill_no_vector(channels: tuple[int, int], types: Types, device: Device, stream: Stream, cudnn: Cudnn):
    plain = convolution(*types, (2, 16, 16, channels[0]), (3, 3), channels[1], begin=(1, 1), end=(1, 1))
    solve(device, stream, cudnn, plain, may_refuse=True)
    solve(device, stream, cudnn, replace(plain, bias=True, activation=Activation.RELU), may_refuse=True)


@pytest.mark.parametrize("types", TYPES, ids="-".join)
@pytest.mark.parametrize("name", SHAPES)
def test_transposed(name: str, types: Types, device: Device, stream: Stream, cudnn: Cudnn):
    x_shape, kernel, out, options = SHAPES[name]
    problem = transposed(convolution(*types, x_shape, kernel, out, **options))
    solve(device, stream, cudnn, problem, may_refuse=types == (F32, Compute.F32) or len(kernel) == 3)
    solve(device, stream, cudnn, replace(problem, bias=True), may_refuse=True)
    solve(device, stream, cudnn, replace(problem, bias=True, activation=Activation.RELU), may_refuse=True)


def test_true_f32_is_more_exact_than_tf32(device: Device, stream: Stream, cudnn: Cudnn):
    errors = {}
    for compute in (Compute.F32, Compute.TF32):
        problem = convolution(F32, compute, (2, 28, 28, 128), (3, 3), 128, begin=(1, 1), end=(1, 1))
        prepared = cudnn.prepare(problem)
        assert prepared is not None, cudnn.refusal(problem)
        case = ConvolutionCase(device, stream, problem)
        run(device, stream, prepared, case)
        got = case.result()
        errors[compute] = float(np.linalg.norm(got - case.expected) / np.linalg.norm(case.expected))
    assert errors[Compute.F32] < 5e-6 < errors[Compute.TF32], errors
