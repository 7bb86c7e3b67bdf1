"""What a study takes of a cluster: the paper's totals, and what makes them up."""

import io

import pandas as pd
import pytest

from gemstones.cluster.page import assumptions, write_page
from gemstones.cluster.plan import check_budget, json_rows, plan_table, rounded, runs_table, shapes_table, totals
from gemstones.errors import UserError
from gemstones.suite import counting
from gemstones.suite.runs import all_runs


@pytest.fixture(scope="module")
def jobs(frontier) -> pd.DataFrame:
    return plan_table(frontier)


def test_totals_of_the_paper(frontier, jobs):
    found = totals(frontier, jobs).set_index("phase")
    assert found["node_hours"].round().to_dict() == {
        "main": 20_418, "lr_ablation": 5_715, "cooldown": 3_078, "all": 29_212,
    }  # fmt: skip
    assert found["runs"].to_dict() == {"main": 22, "lr_ablation": 20, "cooldown": 199, "all": 241}
    assert 404 <= found.loc["main", "jobs"] <= 411
    assert found.loc["main", "hours"] == pytest.approx(718, abs=0.5)
    assert found.loc["all", "tokens"] == pytest.approx(10.79e12, rel=1e-3)
    assert found.loc["all", "gpu_hours"] == pytest.approx(8 * found.loc["all", "node_hours"])
    assert jobs["hours"].max() <= 2


def test_flops_and_their_share_of_the_peak(frontier, jobs):
    run = runs_table(frontier, jobs).set_index("run").loc["1024x28"]
    assert run["flops"] == pytest.approx(counting.flops_per_token(1024, 28) * 83_475 * 4_194_304)
    speed = run["flops"] / (83_475 * 1.394135254) / (32 * 8)
    assert run["mfu"] == pytest.approx(speed / 1.915e14)
    assert jobs["mfu"].between(0.1, 0.4).all()
    plan = frontier.plan.model_copy(update={"gpu_peak_flops": None})
    unknown = frontier.model_copy(update={"plan": plan})
    assert plan_table(unknown)["mfu"].isna().all()
    assert totals(unknown, plan_table(unknown))["mfu"].isna().all()


def test_a_job_says_its_queue_and_what_it_is_charged_for(jobs):
    assert set(jobs["queue"]) == {"batch"}
    assert set(jobs["bin_nodes"]) == {91}
    assert set(jobs["walltime_minutes"]) == {120}
    start_up = jobs["charged_node_hours"] - jobs["node_hours"]
    assert start_up.to_numpy() == pytest.approx((jobs["nodes"] * 3 / 60).to_numpy())


def test_checkpoints_on_disk_are_the_milestones_or_all(frontier, jobs):
    main = jobs[jobs["run"] == "256x23"].set_index("stop_step")
    one = 12 * counting.params(256, 23)
    assert main.loc[7155, "checkpoint_bytes"] == 3 * one  # two anchors on the way, and its end, which is the third
    assert main.loc[35_775, "checkpoint_bytes"] == one
    training = frontier.training.model_copy(update={"keep_checkpoints": "all"})
    everything = plan_table(frontier.model_copy(update={"training": training}))
    of_run = everything[everything["run"] == "256x23"]["checkpoint_bytes"].sum()
    assert of_run == (175 + 1) * one  # 23,840 is no evaluation
    cooldown = everything[everything["run"] == "256x23-cooldown-2385"]["checkpoint_bytes"].sum()
    assert cooldown == one  # 237 steps from 2385, which is a multiple of 477, hold no other one


def test_runs_and_shapes_sum_up_the_jobs(frontier, mini):
    for study in (frontier, mini):
        table = plan_table(study)
        by_run, by_shape = runs_table(study, table), shapes_table(study, table)
        for sums in (by_run, by_shape, totals(study, table).iloc[:-1]):
            for column in ("steps", "tokens", "flops", "node_hours", "charged_node_hours", "checkpoint_bytes"):
                assert sums[column].sum() == pytest.approx(table[column].sum())
            assert sums["runs"].sum() == len(all_runs(study))
            assert sums["jobs"].sum() == len(table)
    assert (by_run["run"].value_counts() == 1).all()
    shared = by_run[by_run["phase"] == "cooldown"]
    assert set(shared["runs"]) == {2}  # mini trains both cooldowns of a shape in one job


def test_the_csv_has_whole_numbers_in_full_and_no_other_long_ones(jobs):
    text = rounded(jobs).to_csv(index=False)
    again = pd.read_csv(io.StringIO(text))
    assert (again["tokens"] == jobs["tokens"]).all()
    assert (again["checkpoint_bytes"] == jobs["checkpoint_bytes"]).all()
    assert again["node_hours"].sum() == pytest.approx(jobs["node_hours"].sum(), rel=1e-6)
    digits = [len(cell.strip("0").replace(".", "")) for cell in text.splitlines()[1].split(",") if "." in cell]
    assert max(digits) <= len("1025205e+19")
    assert json_rows(jobs.head(1))[0]["tokens"] == jobs["tokens"][0]


def test_a_budget_counts_what_is_spent_and_what_is_planned(frontier):
    check_budget(frontier, 1e9, 1e9)  # there is none
    plan = frontier.plan.model_copy(update={"budget_node_hours": 30_000})
    study = frontier.model_copy(update={"plan": plan})
    check_budget(study, 10_000, 20_000)
    wanted = (
        r"^plan\.budget_node_hours: 10,000 node-hours spent and 20,200 still planned are 30,200, of 30,000; "
        r"raise the budget by 200, or plan less under 'runs'$"
    )
    with pytest.raises(UserError, match=wanted):
        check_budget(study, 10_000, 20_200)


@pytest.mark.parametrize("name", ["frontier", "mini", "released"])
def test_the_page_has_totals_makespan_and_runs(name, request, tmp_path):
    study = request.getfixturevalue(name)
    write_page(study, plan_table(study), tmp_path / "plan.html")
    page = (tmp_path / "plan.html").read_text()
    assert [part for part in ("Totals", "Makespan", "Runs") if f"<h2>{part}</h2>" in page] == [
        "Totals",
        "Makespan",
        "Runs",
    ]
    if name == "released":
        assert assumptions(study) == ["The study trains nothing."]
        return
    assert ">mfu<" in page or name == "mini"
    assert ('title="20418.34' in page or ">20418<" in page) == (name == "frontier")


def test_assumptions_say_where_speeds_come_from_and_how_wrong_they_may_be(frontier, mini):
    said = " ".join(assumptions(frontier))
    assert "22 measured" in said
    assert "8 to 64 nodes" in said
    assert "typically off by 8 %" in said
    assert "60 minutes" in said
    assert "15 by plan.flops_per_second" in " ".join(assumptions(mini))
