"""Tests of what operations mean."""
