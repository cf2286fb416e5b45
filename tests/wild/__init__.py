"""Trained models that packages of PyPI carry, on inputs as these packages make them: numbers and times beside ONNX Runtime's."""
