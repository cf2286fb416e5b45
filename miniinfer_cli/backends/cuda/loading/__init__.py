"""What a model has on a device for as long as it is open: weights, kernels, libraries, programs ready to be bound."""
