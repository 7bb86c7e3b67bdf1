"""What Slurm prints, understood; and what happens where it is not there or does not answer."""

import pytest

from gemstones.cluster import slurm


def test_the_account_of_jobs_is_read_whatever_became_of_them(facility):
    facility.account(
        "2|COMPLETED|5|2|1795645817|1795645817|1795645822|0:0",
        "3|FAILED|5|2|1795645817|1795645817|1795645822|1:0",
        "4|CANCELLED by 0|3|1|2026-11-25T22:30:17|2026-11-25T22:30:23|2026-11-25T22:30:26|0:0",
        "5|PENDING|0|4|1795646060|Unknown|Unknown|0:0",
        "6|RUNNING|7|4|1795646060|1795646065|Unknown|0:0",
    )
    found = slurm.account(["2", "3", "4", "5", "6", "99"])
    assert {job: each.state for job, each in found.items()} == {
        "2": "COMPLETED", "3": "FAILED", "4": "CANCELLED", "5": "PENDING", "6": "RUNNING",
    }  # fmt: skip
    assert (found["2"].elapsed_seconds, found["2"].nodes, found["2"].ended) == (5, 2, 1795645822)
    assert found["4"].ended - found["4"].started == 3
    assert found["5"].started is None
    assert [job for job, each in found.items() if each.over] == ["2", "3", "4"]


def test_a_job_that_was_put_back_into_the_queue_is_charged_for_all_its_lives(facility):
    facility.account(
        "8|REQUEUED|7|2|1795645817|1795645817|1795645824|0:0", "8|COMPLETED|14|2|1795645824|1795645944|1795645958|0:0"
    )
    job = slurm.account(["8"])["8"]
    assert (job.state, job.elapsed_seconds, job.started, job.ended) == ("COMPLETED", 21, 1795645817, 1795645958)
    assert "-D" in facility.options("sacct")


def test_many_jobs_are_asked_for_in_parts(facility):
    ids = [str(number) for number in range(1, 2 * slurm.CHUNK + 2)]
    facility.account(*(f"{job}|COMPLETED|60|1|1|1|61|0:0" for job in ids))
    assert set(slurm.account(ids)) == set(ids)
    asked = [call.split() for call in facility.calls("sacct")]
    assert [len(call) for call in asked] == [slurm.CHUNK, slurm.CHUNK, 1]
    assert [job for call in asked for job in call] == ids


def test_the_queue_is_read_with_paths_and_reasons(facility):
    facility.queue(
        ("4", "PENDING", "Resources", "5:00", "0:00", "4", "1795646365", "/study/logs/x-%j.out"),
        ("3", "RUNNING", "None", "1:04:58", "0:02", "4", "1795646065", "/study/logs/x-%j.out"),
        ("7", "PENDING", "ReqNodeNotAvail, UnavailableNodes:frontier00004", "2:00:00", "0:00", "64", "N/A", "/a b"),
    )
    four, three, seven = slurm.queue()
    assert (four.job_id, four.running, four.reason, four.log) == ("4", False, "Resources", "/study/logs/x-%j.out")
    assert (three.running, three.seconds_left, three.seconds_used) == (True, 3898, 2)
    assert (seven.reason, seven.nodes, seven.expected_start, seven.log) == (
        "ReqNodeNotAvail, UnavailableNodes:frontier00004", 64, None, "/a b",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0:00", 0), ("4:58", 298), ("2:00:00", 7200), ("1-02:00:05", 93_605), ("UNLIMITED", None), ("INVALID", None)],
)
def test_times_left_are_seconds(text, seconds):
    assert slurm.duration(text) == seconds


def test_a_facility_that_is_not_there_or_does_not_answer_says_so(no_slurm):
    with pytest.raises(slurm.Unavailable, match="squeue: not found"):
        slurm.queue()
    with pytest.raises(slurm.Unavailable, match="sacct: not found"):
        slurm.account(["1"])
    assert slurm.account([]) == {}


def test_what_is_wrong_with_the_database_is_one_line(facility):
    facility.broken("sacct")
    with pytest.raises(slurm.Unavailable) as error:
        slurm.account(["1"])
    assert str(error.value) == "sacct: Problem talking to the database"
