import numpy as np
import pytest
from scipy.special import huber

from gemstones.laws.minimize import Problem, derivatives, minimize, objective

THETA = np.array([[0.3, 0.6, -0.5, 0.1, 1.8], [0.2, 0.4, 0.0, -0.3, 2.0]])


@pytest.fixture
def problem() -> Problem:
    generator = np.random.default_rng(0)
    u = generator.normal(size=(60, 2))
    return Problem(u - u.mean(0), np.log(2.5 + generator.random(60)))


def test_the_objective_is_the_sum_of_huber_losses(problem):
    alpha, c, constant = THETA[0, :2], THETA[0, 2:4], THETA[0, 4]
    residual = problem.log_loss - np.log(constant + np.exp(c - alpha * problem.u).sum(-1))
    assert objective(THETA, problem, 1e-2)[0] == pytest.approx(huber(1e-2, residual).sum(), rel=1e-14)


@pytest.mark.parametrize("delta", [1.0, 1e-2])
@pytest.mark.parametrize("weighted", [False, True])
def test_derivatives_agree_with_finite_differences(problem, delta, weighted):
    if weighted:
        problem = Problem(problem.u, problem.log_loss, np.random.default_rng(1).integers(0, 3, (2, 60)).astype(float))
    gradient, hessian = derivatives(THETA, problem, delta)
    step = 1e-6
    for j in range(THETA.shape[1]):
        shift = step * np.eye(THETA.shape[1])[j]
        slope = (objective(THETA + shift, problem, delta) - objective(THETA - shift, problem, delta)) / (2 * step)
        assert gradient[:, j] == pytest.approx(slope, rel=1e-5, abs=1e-8)
        up, down = derivatives(THETA + shift, problem, delta)[0], derivatives(THETA - shift, problem, delta)[0]
        assert hessian[:, j] == pytest.approx((up - down) / (2 * step), rel=1e-4, abs=1e-6)


def test_starts_that_meet_are_all_reported(problem):
    starts = np.concatenate([THETA, THETA, [[1.5, 0.1, 0.3, 0.2, 1.0]]])
    minima = minimize(starts, problem, 1e-3)
    assert minima.theta.shape == starts.shape
    assert minima.steps.min() > 0
    assert minima.theta[0] == pytest.approx(minima.theta[2], rel=1e-9)


def test_each_start_may_have_its_own_weights(problem):
    """Resamples of rows as weights give what each resample gives alone."""
    counts = np.random.default_rng(2).multinomial(60, np.full(60, 1 / 60), size=2).astype(float)
    together = minimize(THETA, Problem(problem.u, problem.log_loss, counts), 1e-3)
    for i, weights in enumerate(counts):
        alone = minimize(THETA[i : i + 1], Problem(problem.u, problem.log_loss, weights), 1e-3)
        assert together.objective[i] == pytest.approx(alone.objective[0], rel=1e-9)
