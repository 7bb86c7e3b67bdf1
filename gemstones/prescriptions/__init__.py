"""What to train for a budget, by a fitted law, and what other choices cost."""

from gemstones.prescriptions.optimum import budgets, prescribe
from gemstones.prescriptions.overspend import overspend
from gemstones.prescriptions.overtraining import overtraining

__all__ = ["budgets", "overspend", "overtraining", "prescribe"]
