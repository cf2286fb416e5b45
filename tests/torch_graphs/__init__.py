"""``torch.compile(model, backend="miniinfer")`` beside PyTorch itself: ``make torch-test``, which wants torch and onnxscript."""
