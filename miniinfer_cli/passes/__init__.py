"""Rewrites of a graph, one per file, and the order in which they run."""
