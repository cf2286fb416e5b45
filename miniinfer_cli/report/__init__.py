"""Reports: a document of measured results as one HTML file."""
