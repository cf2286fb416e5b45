"""Normalizations, softmax, losses."""
