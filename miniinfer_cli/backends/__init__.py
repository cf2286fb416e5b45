"""What executes programs: one package per kind of device."""
