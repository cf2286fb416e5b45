"""How each operation is done on the device; one file per family, named as in ``ops``. Importing a family registers it."""
