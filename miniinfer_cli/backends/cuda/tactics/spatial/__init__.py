"""Resizing, pooling, sampling of maps."""
