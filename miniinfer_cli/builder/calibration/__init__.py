"""Calibration: the scales of values from what a model computes on samples of its inputs."""
