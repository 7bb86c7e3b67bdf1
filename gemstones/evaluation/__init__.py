"""Losses of any model on any text, and its accuracies on benchmarks."""
