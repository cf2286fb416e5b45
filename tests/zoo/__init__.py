"""Networks of torchvision, timm and transformers, exported by PyTorch, built and run beside PyTorch: `python -m tests.zoo`."""
