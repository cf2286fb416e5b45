"""From ONNX bytes to a graph: formats, opsets, external data, and everything that can be wrong with a model."""
