"""The ways of computing each operation: lowerings, and what they launch, a folder for each family."""
