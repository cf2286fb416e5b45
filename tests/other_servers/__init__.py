"""Plans in servers of others, started as their users start them: ``make servers-test``, in an environment of its own."""
