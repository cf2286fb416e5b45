"""What the rooms of this backend say to each other: sites, tactics, steps, programs, targets, protocols of devices."""
