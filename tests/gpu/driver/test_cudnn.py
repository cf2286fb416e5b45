"""cuDNN as a library on the device: candidates, stored plans, captures, threads, and what it refuses."""

from pathlib import Path

import pytest

from miniinfer_cli.backends.cuda.contract.problems import Activation, Compute
from miniinfer_cli.backends.cuda.driver.cudnn import Cudnn
from miniinfer_cli.backends.cuda.driver.device import Device
from miniinfer_cli.backends.cuda.driver.stream import Stream
from miniinfer_cli.backends.cuda.driver.tactic_cache import TacticCache
from miniinfer_cli.ir import DType
from tests.gpu.driver.attention_case import attention
from tests.gpu.driver.convolution_case import ConvolutionCase, convolution
from tests.gpu.driver.cudnn_calls import solve
from tests.gpu.driver.library_calls import check_in_threads, check_repeats, check_under_capture

F16, BF16 = DType.F16, DType.BF16


def test_every_candidate_is_right_and_repeats_its_bits(device: Device, stream: Stream, cudnn: Cudnn):
    problem = convolution(
        *(F16, Compute.F32, (1, 14, 14, 64), (3, 3), 64),
        begin=(1, 1),
        end=(1, 1),
        bias=True,
        residual=True,
        activation=Activation.RELU,
    )
    found = cudnn.candidates(problem, 6)
    assert len(found) > 1
    case = ConvolutionCase(device, stream, problem)
    for prepared in found:
        check_repeats(device, stream, prepared, case)


def test_a_stored_plan_is_restored(device: Device, stream: Stream, tmp_path: Path):
    convolution_problem = convolution(F16, Compute.F32, (2, 9, 9, 32), (3, 3), 32, bias=True, activation=Activation.RELU)
    attention_problem = attention(F16, 2, 4, 4, 64, 64, causal=True)
    names = {}
    with Cudnn(device, TacticCache(tmp_path)) as first:
        for problem in (convolution_problem, attention_problem):
            prepared = first.prepare(problem)
            assert prepared is not None, first.refusal(problem)
            names[problem] = prepared.name
    with Cudnn(device, TacticCache(tmp_path)) as second:
        second.bind(stream.handle)
        for problem in (convolution_problem, attention_problem):
            prepared = second.prepare(problem)
            assert prepared is not None and prepared.name == names[problem]
            solve(device, stream, second, problem)
    # Nonsense is refused, and the plan made afresh.
    cache = TacticCache()
    with Cudnn(device, cache) as third:
        third.bind(stream.handle)
        cache.put("cudnn", third._key(convolution_problem), b"name\0nonsense")
        solve(device, stream, third, convolution_problem)


def test_under_capture_with_two_sets_of_operands(device: Device, stream: Stream, cudnn: Cudnn):
    problem = convolution(
        *(BF16, Compute.F32, (2, 14, 14, 32), (3, 3), 32),
        begin=(1, 1),
        end=(1, 1),
        bias=True,
        residual=True,
        activation=Activation.RELU,
    )
    prepared = cudnn.prepare(problem)
    assert prepared is not None
    check_under_capture(device, stream, prepared, [ConvolutionCase(device, stream, problem) for _ in range(2)])


def test_threads_with_streams_of_their_own(device: Device, cudnn: Cudnn):
    problem = convolution(F16, Compute.F32, (1, 12, 12, 32), (3, 3), 32, bias=True, activation=Activation.RELU)
    prepared = cudnn.prepare(problem)
    assert prepared is not None
    check_in_threads(device, prepared, lambda stream: ConvolutionCase(device, stream, problem), cudnn.bind, cudnn.unbind)


def test_what_is_not_supported_says_why(cudnn: Cudnn):
    problem = attention(F16, 1, 2, 2, 16, 16, 60)
    assert cudnn.prepare(problem) is None
    assert "multiple of 8" in cudnn.refusal(problem)


def test_a_stream_that_is_not_bound(device: Device, stream: Stream, cudnn: Cudnn):
    problem = convolution(F16, Compute.F32, (1, 8, 8, 8), (1, 1), 8)
    prepared = cudnn.prepare(problem)
    assert prepared is not None
    with device.create_stream() as other, pytest.raises(ValueError, match="not bound"):
        prepared.enqueue(other.handle, ConvolutionCase(device, stream, problem).addresses, 256)
