"""Which Slurm jobs are the study's, and a memory of them that outlives sacct's database and the logs."""

import shutil

import pytest

from gemstones.cluster import jobs
from gemstones.cluster.slurm import Unavailable


@pytest.fixture
def study(tmp_path):
    return tmp_path / "results/tiny"


def submit(study, *names):
    for name in names:
        path = jobs.log_folder(study) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_logs_tell_which_job_was_to_do_what(study):
    submit(
        study, "rule_train_main/48x2_40/11.log", "rule_train_lr_ablation/48x2-lr_ablation_20/12.log", "rule_data/13.log",
        "rule_law/approach_3_all/14.log", "rule_train_main/48x2_40/notes.txt",
    )  # fmt: skip
    found = jobs.known(study)
    assert {job: (each.rule, each.run, each.step) for job, each in found.items()} == {
        "11": ("train_main", "48x2", 40),
        "12": ("train_lr_ablation", "48x2-lr_ablation", 20),
        "13": ("data", "", None),
        "14": ("law", "", None),
    }


def test_a_start_row_names_a_job_whose_log_is_gone(study):
    assert jobs.known(study, {"5": "48x2"})["5"].run == "48x2"


def test_what_sacct_once_said_is_remembered(study, facility):
    submit(study, "rule_train_main/48x2_20/1.log", "rule_train_main/48x2_40/2.log", "rule_train_main/48x2_40/3.log")
    facility.account("1|COMPLETED|3600|2|10|20|3620|0:0", "2|RUNNING|60|2|10|20|Unknown|0:0")
    first = jobs.update(study, jobs.known(study))
    assert [first[job].node_hours for job in "123"] == [2, 1 / 30, 0]

    shutil.rmtree(jobs.log_folder(study))
    facility.account("2|NODE_FAIL|1800|2|10|20|1820|0:0")
    second = jobs.update(study, jobs.known(study))
    assert (second["1"].account, second["1"].step) == (first["1"].account, 20)
    assert (second["2"].account.state, second["2"].node_hours) == ("NODE_FAIL", 1)
    assert jobs.known(study) == second
    # Jobs that are over are not asked for again.
    assert facility.calls("sacct") == ["1 2 3", "2"]


def test_a_job_that_was_purged_while_it_ran_keeps_what_is_known(study, facility):
    submit(study, "rule_train_main/48x2_40/2.log")
    facility.account("2|RUNNING|60|2|10|20|Unknown|0:0")
    jobs.update(study, jobs.known(study))
    facility.account()
    found = jobs.update(study, jobs.known(study))["2"].account
    assert (found.state, found.elapsed_seconds) == ("UNKNOWN", 60)


def test_the_memory_stays_where_sacct_is_not(study, facility, no_slurm):
    submit(study, "rule_train_main/48x2_40/2.log")
    facility.account("2|RUNNING|60|2|10|20|Unknown|0:0")
    jobs.update(study, jobs.known(study))
    before = jobs.memory_path(study).read_text()
    (no_slurm / "sacct").unlink()
    with pytest.raises(Unavailable):
        jobs.update(study, jobs.known(study))
    assert jobs.memory_path(study).read_text() == before


def test_a_spoilt_row_is_asked_for_again(study, facility):
    submit(study, "rule_train_main/48x2_40/2.log")
    facility.account("2|COMPLETED|60|2|10|20|80|0:0")
    jobs.update(study, jobs.known(study))
    path = jobs.memory_path(study)
    path.write_text(path.read_text().replace(",60,", ",sixty,"))
    assert jobs.update(study, jobs.known(study))["2"].account.elapsed_seconds == 60
