"""Elementwise operations, and regions of them."""
