"""Clusters: what the study costs on one, before and while it runs there."""
