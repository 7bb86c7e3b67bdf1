"""Speed of a run: as measured, as the config says, or by a model that is honest about its error."""

import subprocess
import sys

import numpy as np
import pytest

from gemstones.cluster.throughput import speed, speed_model
from gemstones.errors import UserError
from gemstones.study import Throughput
from gemstones.suite import counting
from gemstones.suite.runs import main_runs, segments


def planned(study, **keys):
    return study.model_copy(update={"plan": study.plan.model_copy(update=keys)})


def without(study, *shapes):
    there = {shape: each for shape, each in study.plan.throughput.items() if shape not in shapes}
    return planned(study, throughput=there)


def test_what_is_measured_comes_first_then_what_the_config_says_then_the_model(frontier):
    run = next(run for run in main_runs(frontier) if run.shape == "1024x28")
    assert speed(frontier, run) == (32, 1.394135254, "measured")
    unmeasured = without(frontier, "1024x28")
    said = speed(planned(unmeasured, flops_per_second=1e14), run)
    flops = counting.flops_per_token(1024, 28) * run.tokens_per_step
    assert said == (1, pytest.approx(flops / 1e14), "flops_per_second")
    fitted = speed(unmeasured, run)
    assert (fitted.nodes, fitted.source) == (16, "fitted")  # as 1792x7, the nearest in parameters
    assert fitted.nodes * fitted.seconds_per_step == pytest.approx(32 * 1.394135254, rel=0.3)


def test_the_model_foretells_a_measured_shape_that_it_has_not_seen(frontier):
    model = speed_model(frontier)
    assert model.shapes == 22
    assert model.nodes == (8, 64)
    assert model.error == pytest.approx(0.077, abs=0.002)
    assert all(coefficient > 0 for coefficient in model.coefficients)
    errors = []
    for shape, each in frontier.plan.throughput.items():
        others = speed_model(without(frontier, shape))
        errors.append(np.log(others.seconds_per_step(shape, each.nodes) / each.seconds_per_step))
    assert np.exp(np.sqrt(np.mean(np.square(errors)))) - 1 == pytest.approx(model.error)
    assert np.abs(errors).max() < np.log(1.3)


def test_the_model_is_that_of_its_own_numbers(frontier):
    model = speed_model(frontier)
    exact = {
        shape: Throughput(nodes=each.nodes, seconds_per_step=model.seconds_per_step(shape, each.nodes))
        for shape, each in frontier.plan.throughput.items()
    }
    again = speed_model(planned(frontier, throughput=exact))
    assert again.coefficients == pytest.approx(model.coefficients)
    assert again.error < 1e-9


def test_more_nodes_are_faster_and_cost_more(frontier):
    for run in main_runs(frontier):
        speeds = [speed(frontier, run, nodes) for nodes in (4, 8, 16, 32, 64, 128)]
        seconds = [each.seconds_per_step for each in speeds]
        assert seconds == sorted(seconds, reverse=True)
        costs = [each.nodes * each.seconds_per_step for each in speeds]
        assert costs == sorted(costs)
    assert speed_model(frontier).extrapolates(128)
    assert not speed_model(frontier).extrapolates(64)


def test_too_few_measured_shapes_are_an_error_that_says_how_many_it_takes(frontier):
    few = without(frontier, *list(frontier.plan.throughput)[5:])
    with pytest.raises(UserError, match=r"plan\.throughput: no entry for 512x12, .* needs 6 measured shapes, not 5$"):
        segments(few)
    with pytest.raises(UserError, match=r"plan\.throughput: 256x23 on 16 nodes is not measured, and 5 measured shapes"):
        speed(few, main_runs(few)[0], 16)


def test_where_all_is_measured_the_graph_needs_no_numpy():
    code = (
        "import sys, yaml; from gemstones.study import load; from gemstones.suite.runs import segments;"
        "segments(load(yaml.safe_load(open('config/frontier.yaml')))); sys.exit('numpy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
