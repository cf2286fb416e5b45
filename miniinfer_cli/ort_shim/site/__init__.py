"""A folder for PYTHONPATH, not for imports."""
