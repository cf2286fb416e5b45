"""From an ONNX model to a plan, with compiled kernels where they are asked for."""
