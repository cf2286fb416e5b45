"""cuDNN's attention on the device against float64."""

from dataclasses import replace
from typing import Any

import pytest

from miniinfer_cli.backends.cuda.driver.cudnn import Cudnn
from miniinfer_cli.backends.cuda.driver.device import Device
from miniinfer_cli.backends.cuda.driver.stream import Stream
from miniinfer_cli.ir import DType
from tests.gpu.driver.attention_case import AttentionCase, attention
from tests.gpu.driver.cudnn_calls import solve
from tests.gpu.driver.library_calls import run

F16, BF16 = DType.F16, DType.BF16


@pytest.mark.parametrize("dtype", [F16, BF16])
@pytest.mark.parametrize("heads_inside", [False, True])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(
    "size", [(2, 4, 4, 128, 128), (1, 8, 2, 64, 64), (3, 6, 1, 33, 33), (2, 4, 4, 1, 77), (1, 2, 2, 100, 36)], ids=str
)
def test_attention(size: Any, causal: bool, heads_inside: bool, dtype: DType, device: Device, stream: Stream, cudnn: Cudnn):
    problem = attention(dtype, *size, heads_inside=heads_inside, causal=causal)
    # One query, or more queries than keys, with the diagonal: not every release has it.
    solve(device, stream, cudnn, problem, may_refuse=causal and size[3] != size[4])


@pytest.mark.parametrize("dtype", [F16, BF16])
@pytest.mark.parametrize("sizes", [(32, 32), (64, 64), (80, 80), (128, 128), (64, 128), (128, 64), (256, 256)], ids=str)
def test_attention_sizes(sizes: tuple[int, int], dtype: DType, device: Device, stream: Stream, cudnn: Cudnn):
    problem = attention(dtype, 2, 4, 2, 64, 96, *sizes)
    solve(device, stream, cudnn, problem, may_refuse=sizes[0] != sizes[1] or sizes[0] > 128)


@pytest.mark.parametrize("dtype", [F16, BF16])
@pytest.mark.parametrize("shape", [(1, 1), (2, 1), (1, 4), (2, 4)], ids=str)
@pytest.mark.parametrize("lengths", [(64, 64), (40, 88)], ids=str)
@pytest.mark.parametrize("causal", [False, True])
def test_attention_masks(causal: bool, lengths: Any, shape: Any, dtype: DType, device: Device, stream: Stream, cudnn: Cudnn):
    problem = attention(dtype, 2, 4, 4, *lengths, causal=causal, mask_shape=(*shape, *lengths))
    solve(device, stream, cudnn, problem, may_refuse=causal)


def test_a_mask_of_keys_only(device: Device, stream: Stream, cudnn: Cudnn):
    problem = attention(F16, 2, 4, 4, 64, 64, mask_shape=(2, 1, 1, 64))
    solve(device, stream, cudnn, problem, may_refuse=True)


def test_attention_over_one_packed_buffer(device: Device, stream: Stream, cudnn: Cudnn):
    batch, heads, length, size = 2, 4, 48, 64
    packed = (length * 3 * heads * size, size, 3 * heads * size, 1)
    problem = replace(attention(F16, batch, heads, heads, length, length), q_strides=packed, k_strides=packed, v_strides=packed)
    prepared = cudnn.prepare(problem)
    assert prepared is not None, cudnn.refusal(problem)
    case = AttentionCase(device, stream, problem, packed=True)
    run(device, stream, prepared, case)
    case.check()
