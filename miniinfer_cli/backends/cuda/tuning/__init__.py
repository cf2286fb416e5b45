"""Which tactics are fastest: what they are kept under, found again, tried, timed and stored."""
