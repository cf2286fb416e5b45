"""Fast forms of the hot operations on the CPU; the file names mirror ``ops``. Importing this registers them."""
