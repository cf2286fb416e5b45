"""From a graph to a plan and from a plan to a program's layout: freezing, schedules, lifetimes, the arena."""
