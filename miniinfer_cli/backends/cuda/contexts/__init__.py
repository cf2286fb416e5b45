"""Execution contexts: their memory, slots for inputs and outputs, and inferences under way."""
