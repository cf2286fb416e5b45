"""Why a plan is as slow as it is, and what would help: pure functions from what was measured and what is in the graph."""
