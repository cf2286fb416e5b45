"""Broken input of every kind, and random models. ``MINIINFER_FUZZ_SCALE`` multiplies how much of it."""
