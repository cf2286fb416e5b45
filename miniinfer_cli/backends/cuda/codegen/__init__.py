"""Kernels written from a graph: pointwise chains, and the expressions of pointwise operations."""
