"""Programs of numpy calls."""
