"""Programs for NVIDIA GPUs."""
