"""An archive has a run to the bit and never loses what it had; what comes back is whole and goes on; purges are told of."""

from __future__ import annotations

import io
import json
import logging
import os
import shutil
import tarfile
from pathlib import Path

import pytest

from gemstones.cluster import storage
from gemstones.cluster.purge import purge_warnings
from gemstones.cluster.restore import restore
from gemstones.cluster.storage import archive, read_record
from gemstones.errors import UserError
from gemstones.study import Study, load
from tests.conftest import config_of

KEY, RUN = "0123456789ab", "16x2"
DAY = 24 * 3600
NOW = 2_000_000_000.0


def write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    os.utime(path, (NOW, NOW))
    return path


def save(results: Path, step: int, milestone: bool = True) -> Path:
    """A checkpoint of a few bytes, as training leaves it."""
    content = f"weights at step {step}".encode() * 1000
    path = write(results / f"training/{RUN}/checkpoints/{KEY}/step-{step:08d}.pt", content)
    sha256 = storage.hashlib.sha256(content).hexdigest()
    sidecar = {"step": step, "bytes": len(content), "sha256": sha256, "milestone": milestone}
    write(path.with_suffix(".json"), json.dumps(sidecar).encode())
    return path


def reach(results: Path, step: int, key: str = KEY) -> Path:
    """A run's state after a job: a checkpoint, rows of metrics, and the manifest."""
    path = save(results, step)
    rows = b"".join(b'{"kind": "train", "step": %d}\n' % number for number in range(1, step + 1))
    write(results / f"training/{RUN}/metrics/{KEY}.jsonl", rows)
    sha256 = json.loads(path.with_suffix(".json").read_text())["sha256"]
    manifest = {"run": RUN, "key": key, "step": step, "checkpoint": {"path": path.as_posix(), "sha256": sha256}}
    return write(results / f"training/{RUN}/steps/{step}.json", json.dumps(manifest).encode())


@pytest.fixture
def results(tmp_path: Path) -> Path:
    results = tmp_path / "results/mini"
    reach(results, 10)
    save(results, 15, milestone=False)
    reach(results, 20)
    write(results / f"training/{RUN}/events.jsonl", b'{"kind": "spike"}\n')
    write(results / f"training/{RUN}/checkpoints/other/step-00000010.pt", b"another recipe")
    return results


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "archive/mini" / f"{RUN}.json"


def archived(results: Path, target: Path, step: int = 20) -> dict[str, bytes]:
    """Archive the run, and give all that it archives as it is now."""
    archive(results / f"training/{RUN}/steps/{step}.json", target, "mini")
    members = [entry["path"] for entry in read_record(target.with_suffix(".tar"))["members"]]
    return {path: (results / "training" / path).read_bytes() for path in members}


def purge(results: Path) -> None:
    shutil.rmtree(results / "training" / RUN)


def content(results: Path) -> dict[str, bytes]:
    training = results / "training"
    found = [path for path in training.rglob("*") if path.is_file() and path.name != "lock"]
    return {path.relative_to(training).as_posix(): path.read_bytes() for path in found}


def damage(path: Path, size: int = 0) -> None:
    path.write_bytes(b"x" * (size or path.stat().st_size))


def test_a_purged_run_comes_back_to_the_bit(results: Path, target: Path) -> None:
    before = archived(results, target)
    steps = {Path(path).name for path in before if "/checkpoints/" in path}
    assert steps == {f"step-{step:08d}.{suffix}" for step in (10, 20) for suffix in ("pt", "json")}
    assert {f"{RUN}/metrics/{KEY}.jsonl", f"{RUN}/events.jsonl", f"{RUN}/steps/10.json"} <= set(before)
    record = json.loads(target.read_text())
    assert record == read_record(target.with_suffix(".tar"))
    assert (record["study"], record["run"], record["key"], record["step"]) == ("mini", RUN, KEY, 20)
    purge(results)
    written = restore(target, results)
    assert content(results) == before
    assert [path.suffix for path in written if path.parent.name == KEY][:2] == [".pt", ".json"]
    assert written[-1].parent.name == "steps"
    manifest = (results / f"training/{RUN}/steps/20.json").stat()
    assert manifest.st_mtime == NOW  # not new for the workflow, but touched now
    assert manifest.st_atime != NOW
    assert restore(target, results) == []


def test_archiving_again_does_nothing_or_adds_what_is_new(results: Path, target: Path) -> None:
    archived(results, target)
    tar = target.with_suffix(".tar")
    first = (tar.stat().st_ino, target.read_bytes())
    target.unlink()  # as Snakemake does before a job
    archived(results, target)
    assert (tar.stat().st_ino, target.read_bytes()) == first
    reach(results, 30)
    before = archived(results, target, 30)
    assert f"{RUN}/steps/30.json" in before
    purge(results)
    restore(tar, results)
    assert content(results) == before


def test_what_was_purged_since_stays_in_the_archive(results: Path, target: Path) -> None:
    before = archived(results, target)
    for path in results.rglob("*00000010.*"):
        path.unlink()
    reach(results, 30)
    with pytest.raises(FileNotFoundError):
        archived(results, target, 30)  # the archive has what is not here
    purge(results)
    restore(target, results)
    after = content(results)
    assert after[f"{RUN}/steps/30.json"]
    assert {path: after[path] for path in before if "metrics" not in path} == {
        path: value for path, value in before.items() if "metrics" not in path
    }


@pytest.mark.parametrize("size", [0, 10])
def test_a_damaged_checkpoint_is_named_and_the_former_archive_stays(results: Path, target: Path, size: int) -> None:
    damaged = save(results, 10)
    damage(damaged, size)
    with pytest.raises(UserError, match=f"^{damaged}: damaged"):
        archived(results, target)
    assert not list(target.parent.iterdir())
    save(results, 10)
    archived(results, target)
    before = {path: path.read_bytes() for path in target.parent.iterdir()}
    damage(save(results, 30))
    with pytest.raises(UserError, match=r"step-00000030.pt: damaged"):
        archived(results, target)
    assert {path: path.read_bytes() for path in target.parent.iterdir()} == before


def test_a_checkpoint_that_is_gone_is_named(results: Path, target: Path) -> None:
    (gone := save(results, 10)).unlink()
    with pytest.raises(UserError, match=f"^{gone}: the checkpoint is gone"):
        archived(results, target)
    shutil.rmtree(gone.parent)
    with pytest.raises(UserError, match=r"step-00000020.pt: the run's last checkpoint is gone"):
        archived(results, target)


def test_another_recipe_or_another_record_does_not_take_an_archives_place(results: Path, target: Path) -> None:
    archived(results, target)
    metrics = results / f"training/{RUN}/metrics/{KEY}.jsonl"
    rows = metrics.read_bytes()
    metrics.write_bytes(rows.splitlines(keepends=True)[-1])
    with pytest.raises(UserError, match=f"^{metrics}: does not begin as in the archive"):
        archived(results, target)
    metrics.write_bytes(rows + b'{"kind": "tr')  # torn by a kill
    reach(results, 20, "other")
    with pytest.raises(UserError, match=r"16x2.tar: holds 16x2 of another recipe or corpus"):
        archived(results, target)


def test_a_kill_in_the_middle_leaves_the_former_archive(
    results: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archived(results, target)
    tar = target.with_suffix(".tar")
    before = tar.read_bytes()
    reach(results, 30)
    pid = os.fork()
    if pid == 0:
        honest, count = tarfile.TarFile.addfile, iter(range(100))

        def killed(*arguments: object) -> None:
            if next(count) == 3:
                os.kill(os.getpid(), 9)
            honest(*arguments)  # type: ignore[arg-type]

        tarfile.TarFile.addfile = killed  # type: ignore[assignment,method-assign]
        archived(results, target, 30)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 9
    assert tar.read_bytes() == before
    assert len(list(target.parent.iterdir())) == 3
    archived(results, target, 30)
    assert sorted(path.name for path in target.parent.iterdir()) == [f"{RUN}.json", f"{RUN}.tar"]


def test_what_is_here_and_newer_stays(results: Path, target: Path) -> None:
    archived(results, target)
    reach(results, 30)
    before = content(results)
    assert restore(target, results) == []
    damage(save(results, 10))
    (results / f"training/{RUN}/steps/10.json").unlink()
    written = [path.name for path in restore(target, results)]
    assert written == ["step-00000010.pt", "step-00000010.json", "10.json"]
    assert content(results) == before


def test_what_contradicts_the_archive_is_named_and_nothing_restored(results: Path, target: Path) -> None:
    archived(results, target)
    for path, other, message in [
        (f"metrics/{KEY}.jsonl", b'{"kind": "other"}\n', "contradict the archive's"),
        ("steps/20.json", json.dumps({"run": RUN, "key": "b", "step": 20, "checkpoint": None}).encode(), "another recipe"),
    ]:  # fmt: skip
        purge(results)
        here = write(results / "training" / RUN / path, other)
        with pytest.raises(UserError, match=f"^{here}: .*{message}"):
            restore(target, results)
        assert content(results) == {f"{RUN}/{path}": other}


def test_a_damaged_archive_restores_nothing(results: Path, target: Path) -> None:
    archived(results, target)
    tar = target.with_suffix(".tar")
    whole = tar.read_bytes()
    purge(results)
    place = whole.index(b"weights at step 20") + 500
    for broken, message in [
        (whole[:place] + b"#" + whole[place + 1 :], "step-00000020.pt is damaged"),
        (whole[:place], "16x2.tar: damaged or unsafe"),
        (b"#" + whole[1:], "16x2.tar: not an archive"),
        (b"", "16x2.tar: not an archive"),
    ]:
        tar.write_bytes(broken)
        with pytest.raises(UserError, match=message):
            restore(target, results)
        assert not content(results)
    tar.unlink()
    with pytest.raises(UserError, match=r"16x2.tar: not found"):
        restore(target, results)


@pytest.mark.parametrize("name", ["../outside", "/tmp/outside", f"{RUN}/../../outside", "17x2/steps/1.json", "link"])
def test_members_outside_of_the_run_are_refused(results: Path, target: Path, name: str) -> None:
    record = {"study": results.name, "run": RUN, "key": KEY, "members": [{"path": name, "bytes": 1, "sha256": "0"}]}
    text = json.dumps(record).encode()
    target.parent.mkdir(parents=True)
    with tarfile.open(target.with_suffix(".tar"), "w") as tar:
        for member, data in ((storage.RECORD, text), (name, b"x")):
            info = tarfile.TarInfo(member)
            info.size = len(data)
            if name == "link" == member:
                info.type, info.linkname, info.size = tarfile.SYMTYPE, "/etc/passwd", 0
            tar.addfile(info, io.BytesIO(data))
    before = content(results.parent.parent)
    with pytest.raises(UserError, match="nothing is restored"):
        restore(target, results)
    assert content(results.parent.parent) == before


def test_a_run_of_another_study_is_refused(results: Path, target: Path) -> None:
    archived(results, target)
    other = results.parent / "other"
    with pytest.raises(UserError, match=f"a run of the study {results.name}, not of other"):
        restore(target, other)
    assert not other.exists()


def study(tmp_path: Path, **changes: object) -> Study:
    settings = {"archive": str(tmp_path / "archive"), "purge_days": 90, **changes}
    return load({**config_of("config"), "storage": settings})


def test_a_purge_is_told_of_in_time(results: Path, target: Path, tmp_path: Path) -> None:
    write(results / "training/data/shards/train-00000.bin", b"12")
    assert purge_warnings(study(tmp_path), results, NOW + 75 * DAY) == []
    run, shards = purge_warnings(study(tmp_path), results, NOW + 77 * DAY)
    size = sum(
        path.stat().st_size for path in (results / "training" / RUN).rglob("*")
        if path.is_file() and "other" not in str(path) and "0015" not in path.name
    )  # fmt: skip
    assert run == (
        f"{RUN}: 8 files, {size / 1e9:.3g} GB, are purged from 2033-08-16 on: not in an archive; `snakemake archive` keeps a run"
    )
    assert shards.startswith("data: 1 files, 2e-09 GB, are purged from 2033-08-16 on: token shards")
    assert purge_warnings(study(tmp_path, purge_days=None), results, NOW + 77 * DAY) == []
    assert "set storage.archive" in purge_warnings(study(tmp_path, archive=None), results, NOW + 77 * DAY)[0]


def test_what_is_archived_or_touched_is_not_told_of(results: Path, target: Path, tmp_path: Path) -> None:
    archived(results, target)
    assert purge_warnings(study(tmp_path), results, NOW + 100 * DAY) == []
    os.utime(save(results, 30), (NOW + 50 * DAY, NOW))
    (line,) = purge_warnings(study(tmp_path), results, NOW + 100 * DAY)
    assert line.startswith(f"{RUN}: 1 files")  # the sidecar, which was not touched
    target.with_suffix(".tar").write_bytes(b"")
    assert "not an archive" in purge_warnings(study(tmp_path), results, NOW)[0]


def test_a_job_that_trains_the_run_is_left_alone(results: Path, target: Path, caplog: pytest.LogCaptureFixture) -> None:
    archived(results, target)
    import fcntl

    with (results / f"training/{RUN}/checkpoints/{KEY}/lock").open("w") as lock, caplog.at_level(logging.INFO):
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="a job trains this run"):
            restore(target, results)
