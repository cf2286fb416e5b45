"""Programs on a device: weights, kernels and libraries of a model; memory, streams and graphs of its contexts."""
