"""From ONNX bytes to a graph: formats, opsets, external data, and everything that can be wrong with a model."""

from miniinfer_cli.onnx_import.importer import ModelInfo, import_model, import_with_info

__all__ = ["ModelInfo", "import_model", "import_with_info"]
