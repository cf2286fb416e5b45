"""Broken and odd input of every kind. ``MINIINFER_FUZZ_SCALE`` multiplies how much of it."""
