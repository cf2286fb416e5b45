"""Which nodes may be computed together; one file per family, imported when a graph may hold a join of it (``join.py``)."""
