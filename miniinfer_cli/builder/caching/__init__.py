"""Caches of keys and values as states: the length of a model's past becomes a value on the device (docs/state.md)."""
