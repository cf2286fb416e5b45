"""A problem of any kind, solved by cuDNN and compared."""

from typing import Any

from miniinfer_cli.backends.cuda.contract.problems import ConvolutionProblem
from miniinfer_cli.backends.cuda.driver.cudnn import Cudnn
from miniinfer_cli.backends.cuda.driver.device import Device
from miniinfer_cli.backends.cuda.driver.stream import Stream
from tests.gpu.driver.attention_case import AttentionCase
from tests.gpu.driver.convolution_case import ConvolutionCase
from tests.gpu.driver.library_calls import run


def solve(device: Device, stream: Stream, cudnn: Cudnn, problem: Any, *, may_refuse: bool = False) -> bool:
    """False when the library refused, which is then printed."""
    prepared = cudnn.prepare(problem)
    if prepared is None:
        assert may_refuse, f"{problem} is refused: {cudnn.refusal(problem)}"
        print(f"refused: {problem}: {cudnn.refusal(problem)}")
        return False
    case = (ConvolutionCase if isinstance(problem, ConvolutionProblem) else AttentionCase)(device, stream, problem)
    run(device, stream, prepared, case)
    case.check()
    return True
