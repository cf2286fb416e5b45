"""The command line: one file per command, flags and reports beside them."""
