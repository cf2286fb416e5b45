"""The command line: one file per command; flags, inputs, measuring and reports, which they share, beside them."""
