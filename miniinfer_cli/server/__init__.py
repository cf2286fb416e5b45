"""A server of plans: the Open Inference Protocol v2 over HTTP, one Batcher for each plan. See docs/serving.md."""
