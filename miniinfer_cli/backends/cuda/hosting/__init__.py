"""What the host does within a program: steps without a kernel, loops and branches."""
