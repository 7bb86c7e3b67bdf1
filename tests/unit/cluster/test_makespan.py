"""The simulated queue: never faster than it can be, never beyond its limits, and exact where one can count."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gemstones.cluster.makespan import Job, in_queue, makespan_table, planned_jobs, simulate
from gemstones.cluster.what_if import on_nodes, what_if

LIMIT = st.one_of(st.none(), st.integers(1, 5))


@st.composite
def graphs(draw: st.DrawFn) -> list[Job]:
    jobs: list[Job] = []
    for number in range(draw(st.integers(1, 25))):
        after = draw(st.lists(st.integers(0, number - 1), unique=True, max_size=2)) if number else []
        hours = draw(st.sampled_from([0.25, 0.5, 1.0, 2.0]))
        jobs.append(Job(number, tuple(after), hours, draw(st.integers(1, 4))))
    return jobs


@given(graphs(), st.sampled_from([0.0, 0.25, 1.0]), LIMIT, LIMIT, LIMIT)
@settings(deadline=None, max_examples=300)
def test_no_schedule_beats_its_bounds_or_breaks_a_limit(jobs, wait, running, eligible, queued):
    found = simulate(jobs, wait_hours=wait, running=running, eligible=eligible, queued=queued)
    ended: list[float] = []
    for job, (submitted, looked_at, start, end) in zip(jobs, found.times, strict=True):
        assert submitted >= max((found.times[other].end for other in job.after), default=0)
        assert submitted <= looked_at
        assert start >= looked_at + wait
        assert end == start + job.hours
        ended.append(end)
    # Not better than the longest chain, nor than all the work side by side, nor than the waits one after another.
    assert found.makespan_hours == max(ended)
    assert found.makespan_hours >= found.longest_chain_hours - 1e-9
    at_once = min(running or len(jobs), queued or len(jobs))
    assert found.makespan_hours >= sum(job.hours for job in jobs) / at_once - 1e-9
    if eligible:
        assert found.makespan_hours >= wait * len(jobs) / eligible - 1e-9
    # At every moment at which something changes:
    for now in {moment for times in found.times for moment in times}:
        there = [
            (job, times) for job, times in zip(jobs, found.times, strict=True) if times.submitted <= now < times.end
        ]
        runs = [job for job, times in there if times.start <= now]
        assert len(runs) <= min(running or len(jobs), found.peak_jobs)
        assert sum(job.nodes for job in runs) <= found.peak_nodes
        assert len(there) <= (queued or len(jobs))
        assert sum(times.eligible <= now < times.start for _, times in there) <= (eligible or len(jobs))


def test_what_one_can_count():
    chain = [Job(n, (n - 1,) if n else (), 2.0, 8) for n in range(5)]
    assert simulate(chain).makespan_hours == 10
    assert simulate(chain, wait_hours=1).makespan_hours == 15
    apart = [Job(n, (), 2.0, 8) for n in range(12)]
    free = simulate(apart, wait_hours=1)
    assert (free.makespan_hours, free.peak_nodes, free.peak_jobs) == (3, 96, 12)
    assert simulate(apart, wait_hours=1, eligible=4).makespan_hours == 3 + 2
    assert simulate(apart, running=5).makespan_hours == 6
    assert simulate(apart, wait_hours=1, queued=4).makespan_hours == 9
    assert simulate([]).makespan_hours == 0


def test_the_longest_chain_goes_first():
    short = [Job(f"short {n}", (), 1.0) for n in range(3)]
    long = [Job(n, (n - 1,) if n else (), 1.0) for n in range(4)]
    found = simulate([*short, *long], running=2)
    assert found.makespan_hours == 4
    assert found.times[3].start == 0


def test_the_full_study_in_its_queues(frontier):
    began = time.perf_counter()
    table = makespan_table(frontier).set_index(["queue", "wait_minutes"])
    assert time.perf_counter() - began < 1
    assert [*table.index] == [(queue, wait) for queue in ("batch", "extended") for wait in (0, 60, 240)]
    batch = table.loc["batch"]
    assert set(batch["jobs"]) == {729}
    assert batch.loc[0, "makespan_days"] == pytest.approx(batch.loc[0, "longest_chain_days"])
    # Of 729 jobs, four are looked at for an hour each: the queue, not the machine, is what takes time.
    assert batch.loc[60, "makespan_days"] == pytest.approx(729 / 4 / 24, rel=0.02)
    assert batch["peak_nodes"].is_monotonic_decreasing
    extended = table.loc["extended"]
    assert (extended["jobs"] < 300).all()
    assert set(extended["peak_jobs"]) == {1}
    assert (extended["makespan_days"] >= extended["job_days"]).all()


def test_another_queue_has_its_own_walltime(frontier):
    plan = in_queue(frontier, "extended").plan
    assert plan.walltime(64) == 1440
    assert in_queue(frontier, "batch") is frontier
    many = makespan_table(on_nodes(frontier, 128)).set_index("queue")
    assert "takes jobs of at most 64 nodes" in many.loc["extended", "note"]
    assert many.loc["batch", "makespan_days"].gt(0).all()


def test_ten_times_the_jobs_take_ten_times_as_long(frontier):
    jobs = planned_jobs(frontier)
    more = [
        Job((copy, job.key), tuple((copy, key) for key in job.after), job.hours, job.nodes)
        for copy in range(10)
        for job in jobs
    ]
    times = []
    for each in (jobs, more):
        best = 1e9
        for _ in range(3):
            began = time.process_time()
            simulate(each, wait_hours=1, eligible=4, queued=100)
            best = min(best, time.process_time() - began)
        times.append(best)
    assert times[1] < 30 * times[0]


def test_what_if_every_run_had_so_many_nodes(frontier, mini):
    table = what_if(frontier, [8, 32, 91, 128]).set_index("plan")
    planned = table.loc["as planned"]
    assert planned["node_hours"] == pytest.approx(29_212, abs=0.5)
    assert planned["longest_run_hours"] == pytest.approx(69.47, abs=0.01)
    assert (
        table.loc["8 nodes", "node_hours"] < table.loc["32 nodes", "node_hours"] < table.loc["128 nodes", "node_hours"]
    )
    assert table.loc["8 nodes", "makespan_days"] > planned["makespan_days"]
    assert table["extrapolated"].to_dict() == {
        "as planned": False, "8 nodes": False, "32 nodes": False, "91 nodes": True, "128 nodes": True,
    }  # fmt: skip
    assert "cannot be split evenly over the 728 processes" in table.loc["91 nodes", "note"]
    assert table.loc["91 nodes", "node_hours"] > 0
    twice = what_if(mini, [2]).set_index("plan").loc["2 nodes"]
    assert twice["extrapolated"]  # no speed was measured at all
    assert twice["note"] == "training.strategy: 'single' trains on one device, not on 2"
