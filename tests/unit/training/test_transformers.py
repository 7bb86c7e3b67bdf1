"""The library transformers loads what is exported, and predicts what the trained model does. Run by `make test-hf`."""

import json
from pathlib import Path

import pytest
import torch

from gemstones.evaluation import hugging_face
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


SMALL = {
    "vocab_size": 300, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
    "max_position_embeddings": 64,
}  # fmt: skip
KINDS = {
    "llama": ("Llama", {}),
    "grouped, tied": ("Llama", {"num_key_value_heads": 2, "tie_word_embeddings": True}),
    "own head size and rotations": ("Llama", {"head_dim": 24, "rope_theta": 500_000.0, "rms_norm_eps": 1e-5}),
    "exact gelu": ("Llama", {"hidden_act": "gelu", "num_key_value_heads": 1}),
    "gemma": ("Gemma", {"num_key_value_heads": 1, "head_dim": 16}),
    "gemma, not tied": ("Gemma", {"num_key_value_heads": 2, "head_dim": 16, "tie_word_embeddings": False}),
}
# What only transformers knows.
SCALED = {"rope_type": "linear", "factor": 2.0, "rope_theta": 10_000.0}
OTHERS = {
    "scaled rotations": ("Llama", {"rope_scaling": SCALED}),
    "biases": ("Llama", {"attention_bias": True}),
    "gpt_neox": ("GPTNeoX", {}),
    "gpt2": ("GPT2", {}),
}


@pytest.mark.parametrize("kind", [*KINDS, *OTHERS])
def test_folders_predict_in_evaluation_what_they_do_in_transformers(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind in KINDS:
        monkeypatch.setattr(hugging_face, "_of_transformers", None)
    name, changes = {**KINDS, **OTHERS}[kind]
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(**SMALL | changes)
    theirs = transformers.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for weight in theirs.parameters():  # norms too, which would start at one
            weight.add_(0.1 * torch.randn(weight.shape))
    theirs.save_pretrained(tmp_path, max_shard_size="100KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1

    model = hugging_face.open_folder(tmp_path, torch.device("cpu"))
    assert (model.vocabulary_size, model.context_length) == (300, 64)
    tokens = torch.randint(0, 300, (4, 64), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        due, found = theirs(tokens).logits, model.logits(tokens)
    print(f"{kind}: logits of {due.std():.2f} differ by {(found - due).abs().max():.1e}")
    assert due.std() > 0.1
    assert (found - due).abs().max() <= 2e-5 * due.abs().max()
