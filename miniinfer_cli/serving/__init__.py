"""What stands between many callers and one engine: requests are computed in batches."""
