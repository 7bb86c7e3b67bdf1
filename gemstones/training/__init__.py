"""Training: token shards, the model and its loop, checkpoints, and jobs that bring a run to a step."""
