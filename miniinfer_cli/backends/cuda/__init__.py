"""Programs of kernel launches, library calls and copies on an NVIDIA GPU."""
