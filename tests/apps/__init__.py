"""Programs of PyPI's, with the models that they carry, over onnxruntime and over miniinfer: ``make apps``."""
