"""A CUDA device in software: kernels compiled for the processor, so that lowerings run and are compared with no GPU."""
