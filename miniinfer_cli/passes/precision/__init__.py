"""In which numbers a graph is computed: what may be stored in 16 bits, and the rewrite that stores it so."""
