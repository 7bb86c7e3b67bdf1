"""The library transformers loads what is exported, and predicts what the trained model does. Run by `make test-hf`."""

import json
from pathlib import Path

import pytest
import torch

from gemstones.training.export import export
from gemstones.training.model import build_model

from .conftest import Train, make_job, make_run

transformers = pytest.importorskip(
    "transformers", reason="transformers wants another tokenizers than the project: run make test-hf"
)


# Four query heads with two key-value heads, three with one, two with one.
@pytest.mark.parametrize(("width", "depth"), [(64, 2), (48, 3), (32, 1)])
@pytest.mark.parametrize("scale_embeddings", [True, False])
def test_logits_are_those_of_litgpt(
    train: Train, tmp_path: Path, width: int, depth: int, scale_embeddings: bool
) -> None:
    run = make_run(
        name=f"{width}x{depth}",
        width=width,
        depth=depth,
        scale_embeddings=scale_embeddings,
        norm_offset=scale_embeddings,
    )
    manifest = train(tmp_path, 20, make_job(run))
    folder = export(manifest, tmp_path / "out")
    theirs, loading = transformers.AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert type(theirs) is transformers.LlamaForCausalLM
    assert theirs.dtype == torch.float32
    assert not any(loading.values())  # no weight is missing, left over or of another shape

    ours = build_model(run)
    checkpoint = json.loads(manifest.read_text())["checkpoint"]["path"]
    ours.load_state_dict(torch.load(checkpoint, weights_only=True)["model"])
    tokens = torch.randint(0, run.vocabulary_size, (8, 16), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        due, found = ours(tokens), theirs(tokens).logits
    print(f"{run.name}: logits of {due.std():.2f} differ by {(found - due).abs().max():.1e}")
    assert due.std() > 0.1
    assert (found - due).abs().max() <= 1e-5


def test_text_goes_in_and_out(train: Train, shards: Path, tmp_path: Path) -> None:
    folder = export(train(tmp_path, 20), tmp_path / "out", shards)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    text = "bad cab fed"
    tokens = tokenizer(text, return_tensors="pt")
    assert tokenizer.decode(tokens["input_ids"][0]) == text
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id
    written = model.generate(**tokens, max_new_tokens=4, do_sample=False, pad_token_id=tokenizer.eos_token_id)
    assert tokenizer.decode(written[0]).startswith(text)
