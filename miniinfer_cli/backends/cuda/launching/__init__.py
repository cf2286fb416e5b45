"""What lowerings share: the launches of each family of kernels, made ready for their operands."""
