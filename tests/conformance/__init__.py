"""onnx.backend.test, run through the public interface."""
