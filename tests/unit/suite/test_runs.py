"""The recipe's numbers, the runs of the paper, and the plan of jobs."""

import itertools
from collections import Counter

import pytest

from gemstones.cluster.plan import plan_table
from gemstones.errors import UserError
from gemstones.study import CooldownAblation, LrTransfer, load
from gemstones.suite.recipe import cooldown_end, peak_lr, scaling_depth
from gemstones.suite.runs import (
    all_runs,
    check_runs,
    cooldown_ablation_runs,
    cooldown_runs,
    lr_transfer_runs,
    main_runs,
    replicate_runs,
    segments,
)
from tests.conftest import config_of


def change(study, **sections):
    """The study with some keys of some sections replaced."""
    update = {name: getattr(study, name).model_copy(update=keys) for name, keys in sections.items()}
    return study.model_copy(update=update)


def test_learning_rate_and_patch(frontier):
    assert peak_lr("1024x28", frontier.recipe, 5.0) == pytest.approx(9.228e-4, rel=1e-4)
    assert scaling_depth("2560x8", frontier.recipe) == 26
    assert scaling_depth("768x3", frontier.recipe) == 3
    by_rule = frontier.recipe.model_copy(update={"patched": None})
    assert scaling_depth("2560x8", by_rule) == 26  # 320 > 256
    assert scaling_depth("1792x7", by_rule) == 7  # exactly 256


def test_cooldown_ends_of_the_paper(frontier):
    ends = [cooldown_end(anchor, 0.1) for anchor in frontier.runs.cooldown.anchors]
    assert ends == [2622, 5246, 7870, 10493, 13116, 15740, 18364, 20987, 23610, 26223]


def test_runs_of_the_paper(frontier):
    assert Counter(run.phase for run in all_runs(frontier)) == {"main": 22, "lr_ablation": 20, "cooldown": 199}


def test_jobs_of_a_run_are_a_chain_from_nothing_to_the_end(frontier, mini):
    for study in (frontier, mini):
        plan = segments(study)
        for run in main_runs(study):
            chain = [segment for segment in plan if segment.run.name == run.name]
            assert chain[0].start == 0
            assert chain[-1].stop == run.steps
            for one, following in itertools.pairwise(chain):
                assert following.start == one.stop
                assert following.after == ((run.name, one.stop),)


def test_anchors_become_checkpoints_and_cooldowns_follow_the_job_that_passes_them(frontier):
    plan = segments(frontier)
    for run in cooldown_runs(frontier):
        first = next(segment for segment in plan if segment.run.name == run.name)
        ((parent, stop),) = first.after
        source = next(segment for segment in plan if (segment.run.name, segment.stop) == (parent, stop))
        assert source.start < run.anchor <= source.stop
        assert run.anchor in source.checkpoints


def test_mini_trains_a_shapes_cooldowns_in_one_job(mini):
    cooldowns = [segment for segment in segments(mini) if segment.run.phase == "cooldown"]
    assert len(cooldowns) == len(mini.runs.cooldown.shapes)
    for segment in cooldowns:
        assert [run.anchor for run in (*segment.before, segment.run)] == list(mini.runs.cooldown.anchors)


def test_four_extreme_shapes_at_six_rates():
    for name, nodes in (("lr_transfer", 1), ("lr_transfer_frontier", 16)):
        study = load(config_of(name), f"config/{name}.yaml")
        bases, runs = study.runs.lr_transfer.lr_bases, all_runs(study)
        assert Counter(run.phase for run in runs) == {"lr_transfer": 4 * 6}
        assert [run.name for run in runs[:6]] == [f"{runs[0].shape}-lr-{place}" for place in range(1, 7)]
        for run in runs:
            assert run.lr * run.width * run.scaling_depth**0.5 == pytest.approx(bases[int(run.name[-1]) - 1])
        assert set(plan_table(study)["nodes"]) >= {nodes}


def test_rates_of_a_shape_share_a_job_or_have_one_each(mini):
    transfer = LrTransfer(lr_bases=(0.5, 2), steps=60, evaluate_every=30, shapes=("16x2", "32x1"))
    each = change(mini, runs={"lr_transfer": transfer})
    assert len(lr_transfer_runs(each)) == 4
    assert sum(segment.run.phase == "lr_transfer" for segment in segments(each)) == 4
    shared = change(mini, runs={"lr_transfer": transfer.model_copy(update={"one_job_per_shape": True})})
    jobs = [segment for segment in segments(shared) if segment.run.phase == "lr_transfer"]
    assert [[run.name for run in (*job.before, job.run)] for job in jobs] == [
        ["16x2-lr-1", "16x2-lr-2"], ["32x1-lr-1", "32x1-lr-2"],
    ]  # fmt: skip
    assert all(job.after == () for job in jobs)


ABLATION = CooldownAblation(anchors=(270, 150, 165), fractions=(0.2, 0.05), shapes=("16x2",))


@pytest.mark.parametrize("one_job_per_shape", [False, True])
def test_cooldowns_of_varying_start_and_length(mini, one_job_per_shape):
    ablation = ABLATION.model_copy(update={"one_job_per_shape": one_job_per_shape})
    study = change(mini, runs={"cooldown_ablation": ablation})
    runs = cooldown_ablation_runs(study)
    assert [(run.name, run.anchor, run.steps) for run in runs] == [
        ("16x2-cooldown-150-5", 150, 157), ("16x2-cooldown-150-20", 150, 179),
        ("16x2-cooldown-165-5", 165, 172), ("16x2-cooldown-165-20", 165, 197),
        ("16x2-cooldown-270-5", 270, 283), ("16x2-cooldown-270-20", 270, 323),
    ]  # fmt: skip
    assert {(run.phase, run.parent) for run in runs} == {("cooldown_ablation", "16x2")}
    plan = segments(study)
    assert sorted(step for s in plan if s.run.name == "16x2" for step in s.checkpoints) == [150, 165, 270]
    jobs = [segment for segment in plan if segment.run.phase == "cooldown_ablation"]
    assert {parent for job in jobs for parent in job.after} == {("16x2", 150), ("16x2", 300)}
    assert sum(len(job.before) + 1 for job in jobs) == 6
    assert len(jobs) == (1 if one_job_per_shape else 6)


def test_an_ablation_leaves_the_jobs_of_all_other_cooldowns_as_they_are(mini):
    study = change(mini, runs={"cooldown_ablation": ABLATION})
    before, after = ({s.run.name: s.job() for s in segments(of) if s.run.phase == "cooldown"} for of in (mini, study))
    assert after == before


def test_the_plan_decides_jobs_but_not_what_a_job_is_told(mini):
    shorter = change(mini, plan={"segment_steps": 60})
    stops = {(segment.run.name, segment.stop) for segment in segments(mini)}
    assert len(segments(shorter)) > len(segments(mini))
    assert {(s.run.name, s.stop) for s in segments(shorter)} >= {(n, s) for n, s in stops if n == "32x2" and s == 300}
    faster = change(mini, plan={"flops_per_second": 1e12, "walltime_minutes": 90.0})
    assert [segment.job() for segment in segments(faster)] == [segment.job() for segment in segments(mini)]


def test_a_longer_main_run_keeps_its_identity_but_another_rate_does_not(mini):
    run = main_runs(mini)[0]
    assert run.identity() == run.model_copy(update={"steps": 900}).identity()
    assert run.identity() != run.model_copy(update={"lr": 0.1}).identity()
    cooldown = cooldown_runs(mini)[0]
    assert cooldown.identity() != cooldown.model_copy(update={"steps": 900}).identity()


def test_a_plan_that_cannot_be_names_its_key(mini):
    with pytest.raises(UserError, match=r"plan\.walltime_minutes: .* too short for the 30 steps"):
        segments(change(mini, plan={"walltime_minutes": 0.001}))
    with pytest.raises(UserError, match=r"plan\.throughput: no entry for 16x2"):
        segments(change(mini, plan={"flops_per_second": None}))


def test_runs_that_cannot_be_name_their_key(mini):
    def with_cooldown(**keys):
        return change(mini, runs={"cooldown": mini.runs.cooldown.model_copy(update=keys)})

    with pytest.raises(UserError, match=r"runs\.cooldown\.anchors: 500 lies beyond the main run's 300 steps"):
        check_runs(with_cooldown(anchors=(500,)))
    with pytest.raises(UserError, match=r"runs\.cooldown\.anchors: a cooldown from step 5"):
        check_runs(with_cooldown(anchors=(5,)))
    with pytest.raises(UserError, match=r"runs\.cooldown\.anchors: 30 lies within the warm-up"):
        check_runs(with_cooldown(anchors=(30,)))
    with pytest.raises(UserError, match=r"runs\.cooldown: 40x2 is not a shape of this suite"):
        check_runs(with_cooldown(shapes=("40x2",)))
    with pytest.raises(UserError, match=r"runs\.cooldown\.anchors: a step is named twice"):
        check_runs(with_cooldown(anchors=(150, 150)))

    def with_ablation(**keys):
        return change(mini, runs={"cooldown_ablation": ABLATION.model_copy(update=keys)})

    with pytest.raises(UserError, match=r"runs\.cooldown_ablation\.anchors: 500 lies beyond"):
        check_runs(with_ablation(anchors=(500,)))
    with pytest.raises(UserError, match=r"runs\.cooldown_ablation\.anchors: a cooldown from step 20"):
        check_runs(with_ablation(anchors=(20,)))
    for fractions in ((0.125,), (0.1, 0.1)):
        with pytest.raises(
            UserError, match=r"runs\.cooldown_ablation\.fractions: 0\.1.* is no whole percent, or named"
        ):
            check_runs(with_ablation(fractions=fractions))
    transfer = LrTransfer(lr_bases=(1, 1), steps=60, evaluate_every=30)
    with pytest.raises(UserError, match=r"runs\.lr_transfer\.lr_bases: a rate is named twice"):
        check_runs(change(mini, runs={"lr_transfer": transfer}))
    with pytest.raises(UserError, match=r"suite\.targets\.big: no feasible shape has 9,000,000 parameters"):
        check_runs(change(mini, suite={"targets": {**mini.suite.targets, "big": 9_000_000}}))
    with pytest.raises(UserError, match=r"plan\.throughput: 40x2 is not a shape of this suite"):
        check_runs(change(mini, plan={"throughput": {"40x2": None}}))


@pytest.mark.parametrize(
    ("training", "message"),
    [
        (
            {"strategy": "axonn(1,1,7)"},
            r"training\.strategy: 'axonn\(1,1,7\)' takes a multiple of 7 processes, and 256x23 has 64",
        ),
        ({"processes": 2}, r"training\.processes: strategy 'single' is one process, not 2"),
        (
            {"strategy": "ddp", "processes": 3},
            r"recipe\.batch_size: 2048 sequences .* evenly over the 3 processes of 256x23",
        ),
        ({"strategy": "tp", "processes": 7}, r"'tp' splits width and vocabulary of 256x23 \(256 and 50304\)"),
    ],
)
def test_a_strategy_that_does_not_fit_the_plan_names_its_key(training, message):
    with pytest.raises(UserError, match=message):
        load({**config_of("frontier"), "training": training})


def test_a_strategy_of_several_processes_needs_them():
    with pytest.raises(
        UserError, match=r"training\.strategy: 'ddp' shares .* and 16x2 has one; set training\.processes"
    ):
        load({**config_of("config"), "training": {"strategy": "ddp"}})


def test_segments_leave_time_to_start_and_to_save(frontier):
    plan = frontier.plan
    left = plan.walltime(64) - plan.start_minutes - frontier.training.save_minutes_before
    assert left - 3 < 60 * plan_table(frontier)["hours"].max() <= left
    careful = change(frontier, training={"save_minutes_before": 20.0})
    assert 60 * plan_table(careful)["hours"].max() <= 100


def test_a_plan_says_what_each_device_holds_and_refuses_what_does_not_fit(frontier):
    plan = plan_table(frontier).groupby("shape")["memory_bytes"].first()
    assert plan.max() < 64e9
    assert plan["1024x28"] < plan["1280x36"]  # on as many devices, with as many sequences at a time
    config = config_of("frontier")
    config["training"] = {"strategy": "axonn(1,1,8)"}  # its whole part of a batch at a time
    wanted = (
        r"plan\.gpu_memory_gb: a step of 512x16 takes 84\.6 GB of each device, of 64; set training\.micro_batch_size"
    )
    with pytest.raises(UserError, match=wanted):
        load(config)
    config["plan"] |= {"gpu_memory_gb": 8}
    with pytest.raises(UserError, match=r"takes \d+\.\d GB .* of 8; choose another training\.strategy, or more nodes"):
        load(config)


def test_replicates_are_main_runs_from_other_seeds(mini):
    main = {run.name: run for run in main_runs(mini)}
    found = replicate_runs(mini)
    assert [run.name for run in found][:3] == ["16x2-seed_1", "16x2-seed_2", "16x3-seed_1"]
    for run in found:
        own = main[run.shape]
        assert (run.phase, run.parent, run.seed) == ("replicate", None, int(run.name[-1]))
        assert run.identity() != own.identity()
        assert run.model_copy(update={"name": own.name, "phase": "main", "seed": own.seed}) == own
    # All replicates of a shape are one job, which starts from nothing.
    jobs = [job for job in segments(mini) if job.run.phase == "replicate"]
    assert [(len(job.before), job.start, job.stop, job.after) for job in jobs] == [(1, 0, 300, ())] * 3


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"shapes": ["16x2"], "seeds": [0]}, r"runs\.replicates\.seeds: 0 is the study's own"),
        ({"shapes": ["16x2"], "seeds": [1, 1]}, r"runs\.replicates\.seeds: 1 stands here twice"),
        ({"shapes": ["17x2"], "seeds": [1]}, r"runs\.replicates: 17x2 is not a shape of this suite"),
        ({"shapes": ["16x2"], "seeds": []}, r"runs\.replicates\.seeds: "),
        ({"shapes": ["16x2"], "seeds": [-1]}, r"runs\.replicates\.seeds\.0: "),
    ],
)
def test_replicates_that_cannot_be_are_one_line(spec, message):
    config = config_of("config")
    config["runs"]["replicates"] = spec
    with pytest.raises(UserError, match=message):
        load(config)
