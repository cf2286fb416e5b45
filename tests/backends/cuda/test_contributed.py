"""A decoder's layer of com.microsoft's operators on the emulated device, beside ONNX Runtime."""

import pytest

from tests.emulation.engine import open_emulated
from tests.onnx_import.contributed import test_decoder
from tests.onnxruntime_release import OLDER


@pytest.mark.skipif(OLDER, reason="older releases of ONNX Runtime lack operators of it")
def test_prompt_and_steps() -> None:
    test_decoder.check_steps(open_emulated, 3e-4)
