"""How fast an engine is: the measuring loop, the times of steps, and the figures of both."""
