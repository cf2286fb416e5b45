"""Plans in the servers and data pipelines of others: a module for each, which alone imports its library."""
