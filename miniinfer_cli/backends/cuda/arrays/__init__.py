"""Arrays on the device, and copies from and to it."""
