"""The only place that talks to CUDA: devices, streams, events, memory, modules, graphs, cuBLASLt, cuDNN."""
