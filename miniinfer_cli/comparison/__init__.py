"""Is it faster, and does it give the same? Assertions on what was measured, and two sides beside each other."""
