"""Pointwise operations as C expressions; one file per family, named as in ``ops``. Importing a family registers it."""

import importlib
import pkgutil

for _module in sorted(m.name for m in pkgutil.iter_modules(__path__)):
    importlib.import_module(f"{__name__}.{_module}")
