"""Programs: from a graph, at given sizes."""
