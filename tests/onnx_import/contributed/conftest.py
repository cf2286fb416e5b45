"""Tests of random nodes, and of the register, need the release of ONNX Runtime that they are written against.

In the lowest that is allowed many operators have no kernel or mean something else; asking it for its schemas ends the process.
"""

from tests.onnxruntime_release import OLDER

_OF_RELEASE = ("attention", "blocks", "decoder", "floats", "forms", "optimized", "quantized", "wrong_nodes")

collect_ignore = [f"test_{name}.py" for name in _OF_RELEASE] if OLDER else []
