"""Nodes, queues, jobs and node-hours: what a study costs, and how it gets through a cluster."""
