"""Checkpoints that survive kills: `step-00000225.pt`, and after it `step-00000225.json` with its size and checksum.

A checkpoint without its sidecar does not exist. Milestones (steps that someone asked for, and the ends of jobs) are not
pruned, but for ends of jobs where `training.keep_checkpoints` is `anchors`.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

from gemstones import files
from gemstones.errors import UserError

log = logging.getLogger(__name__)

# The newest one may be damaged, so the one before it stays too.
KEEP_NEWEST = 2


@dataclass(frozen=True)
class Checkpoint:
    path: Path
    step: int
    bytes: int
    sha256: str
    milestone: bool
    end: bool = False  # a milestone only because a job ended there

    @property
    def sidecar(self) -> Path:
        return self.path.with_suffix(".json")

    def intact(self) -> bool:
        """Whether the content is what was written."""
        return self.path.is_file() and files.sha256(self.path) == self.sha256


def path_of(folder: Path, step: int) -> Path:
    return folder / f"step-{step:08d}.pt"


def save(folder: Path, step: int, state: dict[str, Any], *, milestone: bool, end: bool = False) -> Checkpoint:
    """Write a state, then its sidecar; a milestone stays one when it is written again.

    Parameters
    ----------
    end : whether it is a milestone only because a job ends there.

    Raises
    ------
    UserError
        If it cannot be written, such as to a full disk; former checkpoints are as they were.
    """
    import torch

    path = path_of(folder, step)
    try:
        with files.atomic(path) as temporary, temporary.open("wb") as file:
            hashed = _Hashed(file)
            try:
                torch.save(state, hashed)  # type: ignore[arg-type]
            except RuntimeError:  # what torch makes of an error of the file
                if hashed.error:
                    raise hashed.error from None
                raise
        before = _read(path.with_suffix(".json"))
        if before and before.milestone:
            milestone, end = True, before.end and (end or not milestone)
        checkpoint = Checkpoint(path, step, hashed.bytes, hashed.sha256.hexdigest(), milestone, end)
        _write_sidecar(checkpoint)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}; earlier checkpoints are kept") from None
    return checkpoint


class _Hashed:
    """A file whose checksum is made as it is written, and that remembers what went wrong."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.bytes, self.sha256 = 0, hashlib.sha256()
        self.error: OSError | None = None

    def write(self, data: memoryview) -> int:
        try:
            written = self._file.write(data)
        except OSError as error:
            self.error = error
            raise
        self.sha256.update(data)
        self.bytes += written
        return written

    def flush(self) -> None:
        self._file.flush()


class Saver:
    """Writes in a thread of its own, one thing after the other, while training goes on."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1)
        self._last: Future[None] | None = None

    def start(self, save: Callable[[], None]) -> None:
        self.wait()
        self._last = self._thread.submit(save)

    def wait(self) -> None:
        """Until all is written; raises what went wrong there."""
        last, self._last = self._last, None
        if last:
            last.result()


def load(checkpoint: Checkpoint) -> dict[str, Any]:
    """The state of a checkpoint, on the CPU, read from the file as it is needed."""
    import torch

    state: dict[str, Any] = torch.load(checkpoint.path, map_location="cpu", weights_only=True, mmap=True)
    return state


def available(folder: Path) -> list[Checkpoint]:
    """Checkpoints by step, those that have their full size; one that is too short or absent is warned of."""
    found = []
    for sidecar in sorted(folder.glob("step-*.json")):
        checkpoint = _read(sidecar)
        if checkpoint is None:
            log.warning("%s: the checkpoint's sidecar is damaged; leaving the checkpoint out", sidecar)
            continue
        try:
            size = checkpoint.path.stat().st_size
        except FileNotFoundError:
            size = 0
        if size == checkpoint.bytes:
            found.append(checkpoint)
        else:
            log.warning(
                "%s: %d of %d bytes are there; leaving this checkpoint out", checkpoint.path, size, checkpoint.bytes
            )
    return found


def newest(folder: Path, at_most: int, above: int = -1) -> Checkpoint | None:
    """The last intact checkpoint in (above, at_most]; a damaged one is warned of and the one before it taken."""
    for checkpoint in reversed(available(folder)):
        if above < checkpoint.step <= at_most:
            if checkpoint.intact():
                return checkpoint
            log.warning(
                "%s: damaged (its checksum is another one); going back to the checkpoint before it", checkpoint.path
            )
    return None


def before(folder: Path, step: int, number: int) -> Checkpoint | None:
    """The intact checkpoint `number` back from a step, or as far as there are any.

    None lies behind the last milestone, which others have started from.
    """
    found = None
    for checkpoint in reversed(available(folder)):
        if checkpoint.step < step and checkpoint.intact():  # which reads the whole of it
            found, number = checkpoint, number - 1
            if number < 1 or found.milestone:
                break
    return found


def milestones(folder: Path) -> list[Checkpoint]:
    """Milestones by step as their sidecars tell of them, whether the checkpoints are there or not.

    Raises
    ------
    UserError
        If a sidecar is damaged.
    """
    found = []
    for sidecar in sorted(folder.glob("step-*.json")):
        checkpoint = _read(sidecar)
        if checkpoint is None:
            raise UserError(f"{sidecar}: the checkpoint's sidecar is damaged; remove it, or restore it from an archive")
        if checkpoint.milestone:
            found.append(checkpoint)
    return found


def discard(folder: Path, above: int) -> None:
    """Remove the checkpoints above a step, which a roll-back has left behind."""
    for checkpoint in available(folder):
        if checkpoint.step > above and not checkpoint.milestone:
            _remove(checkpoint)


def keep(checkpoint: Checkpoint, *, end: bool = False) -> Checkpoint:
    """Make a checkpoint a milestone, or one that was only the end of a job a milestone for good."""
    if not checkpoint.milestone or (checkpoint.end and not end):
        checkpoint = replace(checkpoint, milestone=True, end=end)
        _write_sidecar(checkpoint)
    return checkpoint


def prune(folder: Path, current: int, ends_below: int = 0) -> None:
    """Remove all but the milestones, the newest ones and that of the step `current`.

    Parameters
    ----------
    ends_below : ends of jobs below this step are removed too. The checkpoint of this step must have been read back intact,
        so that a run never depends on one that was only written.
    """
    found = available(folder)
    for checkpoint in found[:-KEEP_NEWEST]:
        kept = checkpoint.milestone and not (checkpoint.end and checkpoint.step < ends_below)
        if not kept and checkpoint.step != current:
            _remove(checkpoint)


def clean(folder: Path) -> None:
    """Remove what kills have left: half-written files, and checkpoints without a sidecar."""
    for left in folder.glob(".*.tmp"):
        left.unlink()
    for path in folder.glob("step-*.pt"):
        if not path.with_suffix(".json").exists():
            path.unlink()


def _remove(checkpoint: Checkpoint) -> None:
    # The sidecar first: a checkpoint without one does not exist.
    checkpoint.sidecar.unlink(missing_ok=True)
    checkpoint.path.unlink(missing_ok=True)


def _write_sidecar(checkpoint: Checkpoint) -> None:
    content = {
        "step": checkpoint.step,
        "bytes": checkpoint.bytes,
        "sha256": checkpoint.sha256,
        "milestone": checkpoint.milestone,
    }
    if checkpoint.end:
        content["end"] = True
    files.write_json(content, checkpoint.sidecar)


def _read(sidecar: Path) -> Checkpoint | None:
    try:
        content = json.loads(sidecar.read_text())
        path = sidecar.with_suffix(".pt")
        milestone, end = content["milestone"], content.get("end", False)
        return Checkpoint(path, content["step"], content["bytes"], content["sha256"], milestone, end)
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
