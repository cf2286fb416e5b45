"""Build an ONNX model into a plan and run the plan on a GPU or a CPU."""
