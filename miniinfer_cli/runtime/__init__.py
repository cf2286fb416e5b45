"""What callers hold: engines, contexts, timing; the same for every backend."""
