"""The learning rate of every step, and which weights decay."""

import pytest
import torch

from gemstones.training.model import build_model
from gemstones.training.optimizer import build_optimizer, decays, learning_rate

from .conftest import make_cooldown, make_run


def test_warm_up_is_linear_in_tokens_from_zero_then_constant() -> None:
    run = make_run(lr=0.8, warmup_tokens=256)  # 64 tokens a step
    assert [learning_rate(run, step) for step in range(6)] == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 0.8])
    assert learning_rate(run, 10_000) == 0.8


def test_cooldown_goes_linearly_from_the_peak_at_its_anchor_to_zero_at_its_end() -> None:
    run = make_cooldown(anchor=10, steps=14)
    assert [learning_rate(run, step) for step in range(10, 15)] == pytest.approx([0.01, 0.0075, 0.005, 0.0025, 0])
    assert learning_rate(run, 14) == 0


def test_all_weights_but_norms_and_biases_decay() -> None:
    model = build_model(make_run(depth=2))
    optimizer = build_optimizer(model, make_run(weight_decay=0.1))
    names = {id(weight): name for name, weight in model.named_parameters()}
    decayed, plain = ({names[id(weight)] for weight in group["params"]} for group in optimizer.param_groups)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.1, 0.0]
    assert decayed | plain == set(names.values())
    assert not decayed & plain
    norms = [f"transformer.h.{layer}.norm_{number}.weight" for layer in (0, 1) for number in (1, 2)]
    assert plain == {*norms, "transformer.ln_f.weight"}
    assert not decays("transformer.h.0.attn.qkv.bias", make_run())
    # The released models' last norm was decayed.
    released = build_optimizer(model, make_run(decay_final_norm=True))
    assert {names[id(weight)] for weight in released.param_groups[1]["params"]} == set(norms)


def test_updates_are_those_of_torch_adamw() -> None:
    run = make_run()
    ours, theirs = (torch.nn.Linear(5, 3) for _ in range(2))
    theirs.load_state_dict(ours.state_dict())
    settings = {"lr": run.lr, "betas": (run.beta1, run.beta2), "eps": run.epsilon, "weight_decay": run.weight_decay}
    reference = torch.optim.AdamW(
        [{"params": [theirs.weight]}, {"params": [theirs.bias], "weight_decay": 0.0}], fused=True, **settings
    )
    optimizer = build_optimizer(ours, run)
    for step in range(3):
        for model, its in ((ours, optimizer), (theirs, reference)):
            its.zero_grad()
            model(torch.full((2, 5), float(step))).square().sum().backward()
            its.step()
    assert torch.equal(ours.weight, theirs.weight)
    assert torch.equal(ours.bias, theirs.bias)
