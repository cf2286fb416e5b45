"""Which tactic a node gets: those listed, the policy's records by signature, what is forced, the heuristic's favourite."""
