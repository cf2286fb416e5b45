"""A model opened on a device, and what the device can do."""
