"""Small kernels around the functions of ``kernels/sm90``, over random parameters: for the emulated device, and for a GPU."""
