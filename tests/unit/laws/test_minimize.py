import numpy as np
import pytest
from scipy.special import huber

from gemstones.laws.minimize import levenberg, minimize
from gemstones.laws.objective import Problem, evaluate, exponents, from_exponents, predict

EACH = np.arange(2)  # a term for each exponent
PHI = from_exponents(
    np.array([[0.3, 0.6], [0.2, 0.4]]), np.array([[-0.5, 0.1], [0.0, -0.3]]), np.array([1.8, 2.0]), EACH
)


@pytest.fixture
def problem() -> Problem:
    generator = np.random.default_rng(0)
    u = generator.normal(size=(2, 60))
    u -= u.mean(1, keepdims=True)
    return Problem(
        u, np.log(1.5 + 0.9 * np.exp(-0.5 * u[0]) + 0.8 * np.exp(-0.3 * u[1])) + generator.normal(0, 0.1, 60)
    )


def test_a_term_that_the_data_do_not_have_fades(problem):
    """Losses that follow nothing: the fit still ends at a minimum."""
    noise = Problem(problem.u, np.log(2.5 + np.random.default_rng(0).random(60)))
    minima = minimize(PHI, noise, 1e-3)
    assert np.abs(minima.gradient).max() < 1e-9


def test_the_objective_is_the_sum_of_huber_losses(problem):
    alpha, c = np.array([0.3, 0.6]), np.array([-0.5, 0.1])
    residual = problem.log_loss - np.log(1.8 + np.exp(c - alpha * problem.u.T).sum(-1))
    assert evaluate(PHI, problem, 1e-2)[0][0] == pytest.approx(huber(1e-2, residual).sum(), rel=1e-14)
    assert evaluate(PHI, problem, np.inf)[0][0] == pytest.approx((residual**2).sum() / 2, rel=1e-14)


@pytest.mark.parametrize("delta", [np.inf, 1e-2])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("penalty", [1.0, 4.0])
def test_derivatives_agree_with_finite_differences(problem, delta, weighted, penalty):
    weights = np.random.default_rng(1).integers(0, 3, (2, 60)).astype(float) if weighted else None
    problem = Problem(problem.u, problem.log_loss, weights, penalty)
    gradient, hessian = evaluate(PHI, problem, delta)[1:]
    step = 1e-6
    for j in range(PHI.shape[1]):
        shift = step * np.eye(PHI.shape[1])[j]
        up, down = evaluate(PHI + shift, problem, delta), evaluate(PHI - shift, problem, delta)
        assert gradient[:, j] == pytest.approx((up[0] - down[0]) / (2 * step), rel=1e-5, abs=1e-8)
        assert hessian[:, j] == pytest.approx((up[1] - down[1]) / (2 * step), rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("delta", [np.inf, 1e-2])
def test_derivatives_of_products_agree_with_finite_differences(delta):
    """Terms of one, three and two factors."""
    generator, term = np.random.default_rng(3), np.array([0, 1, 1, 1, 2, 2])
    u = generator.normal(size=(6, 40))
    problem = Problem(u, np.log(3 + generator.random(40)), term=term)
    alpha = np.array([[0.3, 0.5, -0.2, 0.1, 0.4, -0.3], [0.1, 0.2, 0.3, -0.4, 0.6, 0.2]])
    phi = from_exponents(alpha, generator.normal(-0.5, 0.3, (2, 3)), np.array([1.5, 1.2]), term)
    assert exponents(phi, term) == pytest.approx(alpha)
    gradient, hessian = evaluate(phi, problem, delta)[1:]
    step = 1e-6
    for j in range(phi.shape[1]):
        shift = step * np.eye(phi.shape[1])[j]
        up, down = evaluate(phi + shift, problem, delta), evaluate(phi - shift, problem, delta)
        assert gradient[:, j] == pytest.approx((up[0] - down[0]) / (2 * step), rel=1e-5, abs=1e-7)
        assert hessian[:, j] == pytest.approx((up[1] - down[1]) / (2 * step), rel=1e-4, abs=1e-5)


def test_overestimates_may_weigh_more(problem):
    """A law that leans to the lowest losses: fewer rows lie below it."""
    shares = []
    for penalty in (1.0, 20.0):
        one_sided = Problem(problem.u, problem.log_loss, None, penalty)
        phi = minimize(PHI[:1], one_sided, 1e-2).phi
        shares.append(float((problem.log_loss < np.log(predict(phi, problem.u, EACH)[0])).mean()))
    assert shares[0] == pytest.approx(0.5, abs=0.1)
    assert shares[1] < 0.2


def test_many_rows_are_evaluated_in_blocks(problem):
    """Repeating all rows 400 times multiplies everything by 400."""
    many = Problem(np.tile(problem.u, 400), np.tile(problem.log_loss, 400))
    for once, repeated in zip(evaluate(PHI, problem, 1e-2), evaluate(PHI, many, 1e-2), strict=True):
        assert repeated == pytest.approx(400 * once, rel=1e-11, abs=1e-11)


def test_starts_that_meet_are_all_reported(problem):
    starts = np.concatenate(
        [PHI, PHI, from_exponents(np.array([[1.5, 0.1]]), np.array([[0.3, 0.2]]), np.ones(1), EACH)]
    )
    minima = minimize(starts, problem, 1e-3)
    assert minima.phi.shape == starts.shape
    assert minima.phi[0] == pytest.approx(minima.phi[2], rel=1e-9)


def test_each_start_may_have_its_own_weights_or_rows(problem):
    """Resamples as weights, or as rows of their own, give what each resample gives alone."""
    counts = np.random.default_rng(2).multinomial(60, np.full(60, 1 / 60), size=2).astype(float)
    rows = np.stack([np.repeat(np.arange(60), weights.astype(int)) for weights in counts])
    weighted = minimize(PHI, Problem(problem.u, problem.log_loss, counts), 1e-3)
    own = minimize(PHI, Problem(problem.u[:, rows].transpose(1, 0, 2), problem.log_loss[rows]), 1e-3)
    for i, weights in enumerate(counts):
        alone = minimize(PHI[i : i + 1], Problem(problem.u, problem.log_loss, weights), 1e-3)
        assert weighted.objective[i] == pytest.approx(alone.objective[0], rel=1e-9)
        assert own.objective[i] == pytest.approx(alone.objective[0], rel=1e-9)


def test_parameters_may_be_fixed(problem):
    """A fixed exponent stays, the others go to the minimum of what is left, and nothing lies below the free minimum."""
    free = minimize(PHI[:1], problem, 1e-2)
    fixed = np.array([[0.9, np.nan, np.nan], [np.nan, np.nan, 2.2]])
    held = levenberg(np.repeat(free.phi, 2, 0), problem, 1e-2, fixed=fixed)
    assert exponents(held.phi, EACH)[0, 0] == pytest.approx(0.9, rel=1e-12)
    assert held.phi[1, 4] == 2.2
    assert (held.objective > free.objective[0]).all()
    assert np.abs(held.gradient).max() < 1e-7
    for j, i in ((1, 0), (4, 0), (0, 1)):  # no step in another parameter lowers it
        for step in (-1e-4, 1e-4):
            moved = held.phi[i].copy()
            moved[j] += step
            if i == 0 and j == 0:
                moved[2] = 0.9 * moved[0]
            assert evaluate(moved[None], problem, 1e-2)[0][0] > held.objective[i] - 1e-12
