"""What goes wrong in a run: losses that are not finite, spikes, divergence, stalls; and what is done about it.

Every event, and every act, is a line of `training/<run>/events.jsonl`. The state of the watch is part of a checkpoint, so that a run
that is resumed sees what one that was never interrupted sees.
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from typing import Any, Literal

from gemstones.errors import UserError
from gemstones.study import Watch

Act = Literal["record", "roll_back", "stop"]
ACTS: tuple[Act, ...] = ("record", "roll_back", "stop")  # the last is the strongest
# What a spike is measured by, beside the loss itself.
SPIKING = ("loss", "gradient_norm")
# A spike needs so many steps to be compared with.
FEWEST_STEPS = 20


class Stopped(UserError):
    """A run was stopped, as the policy wants it: at `step`, because of what `reason` says."""

    def __init__(self, run: str, step: int, reason: str) -> None:
        super().__init__(f"{run}: stopped at step {step}: {reason}; earlier checkpoints are kept")
        self.step, self.reason = step, reason


class Watcher:
    """Looks at the row of every step; the events that it gives are in the order of their weight."""

    def __init__(self, policy: Watch) -> None:
        self.policy = policy
        self._recent: dict[str, deque[float]] = {name: deque(maxlen=policy.window) for name in (*SPIKING, "seconds")}
        self._lowest = math.inf
        self._stalled = False

    def look(self, row: dict[str, Any]) -> list[dict[str, Any]]:
        """Events of a step: each its `kind`, `step` and the numbers that it is seen by. Non-finite rows are forgotten."""
        where = {"step": row["step"]}
        broken = [name for name in SPIKING if not math.isfinite(row[name])]
        if broken:
            return [{"kind": "non_finite", **where, **{name: str(row[name]) for name in SPIKING}, "lr": row["lr"]}]
        events = [event for name in SPIKING if (event := self._spike(name, row[name]))]
        for name, values in self._recent.items():
            values.append(row[name])
        if len(self._recent["loss"]) == self.policy.window:
            mean = statistics.fmean(self._recent["loss"])
            self._lowest = min(self._lowest, mean)
            if mean > self._lowest + self.policy.divergence_nats:
                found = {"mean_loss": mean, "lowest_mean_loss": self._lowest}
                events.insert(0, {"kind": "divergence", **found})
        events += self._stall(row["seconds"])
        return [{"kind": event["kind"], **where, **event} for event in events]

    def act(self, events: list[dict[str, Any]], roll_backs: int) -> Act:
        """What the policy wants: the strongest of what its events call for, and to stop where there were enough roll-backs."""
        wanted: set[Act] = set()
        for event in events:
            if event["kind"] in ("non_finite", "divergence"):
                wanted.add(self.policy.on_failure)
            elif event["kind"] == "spike":
                wanted.add(self.policy.on_spike)
        if "stop" in wanted or ("roll_back" in wanted and roll_backs >= self.policy.most_roll_backs):
            return "stop"
        return "roll_back" if "roll_back" in wanted else "record"

    def state(self) -> dict[str, Any]:
        """All but speeds, which are the machine's."""
        return {"lowest": self._lowest, **{name: list(self._recent[name]) for name in SPIKING}}

    def restore(self, state: dict[str, Any]) -> None:
        self._lowest = state["lowest"]
        for name, values in self._recent.items():
            values.clear()
            values.extend(state.get(name, ()))

    def _spike(self, name: str, value: float) -> dict[str, Any] | None:
        values = self._recent[name]
        if len(values) < min(FEWEST_STEPS, self.policy.window):
            return None
        # Losses fall along the window: robust numbers take neither that nor a former spike for scatter.
        middle = statistics.median(values)
        scatter = 1.4826 * statistics.median(abs(other - middle) for other in values)
        sigmas = (value - middle) / scatter if scatter > 0 else 0.0
        if sigmas <= self.policy.sigmas:
            return None
        return {"kind": "spike", "of": name, "value": value, "median": middle, "sigmas": round(sigmas, 1)}

    def _stall(self, seconds: float) -> list[dict[str, Any]]:
        values = self._recent["seconds"]
        usual = statistics.median(values)
        stalled = len(values) >= FEWEST_STEPS and seconds > self.policy.stall_factor * usual
        began, self._stalled = stalled and not self._stalled, stalled
        return [{"kind": "stall", "seconds": seconds, "median_seconds": usual}] if began else []
