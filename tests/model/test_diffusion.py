from __future__ import annotations

import pytest
import torch

from recsys.errors import ConfigurationError
from recsys.model.diffusion import OFFSETS, Diffusion, StepEmbedding, posterior, reverse
from recsys.model.schedule import SCHEDULES


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_truncated_linear_schedule_is_the_published_one() -> None:
    betas = SCHEDULES["truncated-linear"](32)
    assert betas.dtype == torch.float64
    assert betas[0].item() == pytest.approx(0.013125)
    assert betas[-1].item() == pytest.approx(0.635)
    alpha_bar = Diffusion("truncated-linear", 32).alpha_bar
    assert alpha_bar.dtype == torch.float32
    assert alpha_bar[1].item() == pytest.approx(0.987, abs=5e-4)
    assert alpha_bar[32].item() == pytest.approx(1e-6, rel=0.5)


def test_truncated_linear_falls_back_where_its_end_would_pass_one() -> None:
    assert SCHEDULES["truncated-linear"](10)[-1].item() == pytest.approx(0.001 * 100 + 0.01)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("timesteps", [1, 2, 32, 1000])
def test_every_schedule_only_ever_adds_noise(name: str, timesteps: int) -> None:
    betas = SCHEDULES[name](timesteps)
    assert betas.shape == (timesteps,)
    assert ((betas > 0) & (betas < 1)).all()
    alpha_bar = Diffusion(name, timesteps).alpha_bar
    assert alpha_bar[0] == 1
    assert (alpha_bar.diff() < 0).all()


def test_cosine_and_sqrt_follow_their_alpha_bar() -> None:
    middle = Diffusion("cosine", 100).alpha_bar[50].item()
    cosine = torch.cos(torch.tensor([0.508, 0.008]) / 1.008 * torch.pi / 2) ** 2
    assert middle == pytest.approx((cosine[0] / cosine[1]).item(), rel=1e-3)
    middle = Diffusion("sqrt", 100).alpha_bar[25].item()
    assert middle == pytest.approx((1 - 0.2501**0.5) / (1 - 0.01), rel=1e-3)


def test_q_sample_mixes_target_and_noise_by_alpha_bar() -> None:
    diffusion = Diffusion("truncated-linear", 32)
    x_0, noise = torch.ones(2, 4), torch.full((2, 4), 2.0)
    noised = diffusion.q_sample(x_0, torch.tensor([1, 32]), noise)
    alpha_bar = diffusion.alpha_bar[[1, 32]].double()
    expected = alpha_bar.sqrt() + 2 * (1 - alpha_bar).sqrt()
    assert noised[:, 0].tolist() == pytest.approx(expected.tolist(), rel=1e-5)


def test_posterior_is_bayes_rule() -> None:
    """Multiply q(x_s | x_b) and q(x_b | x_0), both Gaussian, by hand."""
    alpha_bar, before = 0.3, 0.6
    alpha = alpha_bar / before
    x_0, x_s = 0.8, -0.5
    precision = alpha / (1 - alpha) + 1 / (1 - before)
    mean = (alpha**0.5 * x_s / (1 - alpha) + before**0.5 * x_0 / (1 - before)) / precision
    computed, variance = posterior(
        torch.tensor([x_0], dtype=torch.float64),
        torch.tensor([x_s], dtype=torch.float64),
        alpha_bar,
        before,
    )
    assert computed.item() == pytest.approx(mean)
    assert variance.item() == pytest.approx(1 / precision)


def test_respaced_steps_end_at_pure_noise() -> None:
    diffusion = Diffusion("truncated-linear", 32)
    assert diffusion.respaced(32) == list(range(1, 33))
    assert diffusion.respaced(1) == [32]
    assert diffusion.respaced(4) == [8, 16, 24, 32]
    assert diffusion.respaced(3) == [11, 22, 32]
    for steps in (0, 33):
        with pytest.raises(ConfigurationError, match=r"1\.\.32"):
            diffusion.respaced(steps)


@pytest.mark.parametrize("steps", [1, 2, 5, 32])
def test_reverse_lands_on_what_the_approximator_says(steps: int) -> None:
    diffusion = Diffusion("truncated-linear", 32)
    target = torch.randn(3, 8, generator=generator())
    steps_taken: list[int] = []

    def approximate(_: torch.Tensor, step: int) -> torch.Tensor:
        steps_taken.append(step)
        return target

    noise = torch.randn(steps, 8, generator=generator(1))
    x_0 = reverse(approximate, torch.randn(3, 8), noise, diffusion, steps)
    assert torch.equal(x_0, target)
    assert steps_taken == diffusion.respaced(steps)[::-1]


def test_reverse_shows_every_state_it_goes_through() -> None:
    diffusion = Diffusion("truncated-linear", 32)
    start, noise = torch.randn(3, 8), torch.randn(4, 8, generator=generator(1))
    states: list[tuple[int, torch.Tensor, torch.Tensor]] = []

    def approximate(x: torch.Tensor, step: int) -> torch.Tensor:
        return x / step

    result = reverse(approximate, start, noise, diffusion, 4, lambda *state: states.append(state))
    assert [step for step, _, _ in states] == [32, 24, 16, 8]
    assert torch.equal(states[0][1], start)
    assert torch.equal(states[-1][2], result)
    for step, x, x_0 in states:
        assert torch.equal(x_0, x / step)


def test_reverse_walks_the_marginals_of_the_forward_process() -> None:
    """With a perfect approximator x_s has mean sqrt(alpha-bar) x_0, variance 1 - alpha-bar."""
    diffusion = Diffusion("truncated-linear", 32)
    target = torch.full((1, 40_000), 3.0)
    passed: dict[int, torch.Tensor] = {}

    def approximate(x: torch.Tensor, step: int) -> torch.Tensor:
        passed[step] = x
        return target

    draws = torch.randn(33, 40_000, generator=generator())
    reverse(approximate, draws[:1], draws[1:], diffusion, 32)
    for step in (2, 8, 20):
        alpha_bar = diffusion.alpha_bar[step].item()
        assert passed[step].mean().item() == pytest.approx(3 * alpha_bar**0.5, abs=0.03)
        assert passed[step].var().item() == pytest.approx(1 - alpha_bar, rel=0.05)


@pytest.mark.parametrize(
    ("form", "mean", "variance", "shared"),
    [
        ("none", 0, 1, 0),
        ("mean", 0.1, 1, 0),
        ("iid", 0, 1.01, 0),
        ("shared", 0, 1.01, 0.01),
    ],
)
def test_each_offset_form_has_its_moments(
    form: str, mean: float, variance: float, shared: float
) -> None:
    noise = OFFSETS[form]((400_000, 2), generator(), 0.1).double()
    assert noise.mean().item() == pytest.approx(mean, abs=0.005)
    assert noise.var().item() == pytest.approx(variance, abs=0.006)
    assert torch.cov(noise.T)[0, 1].item() == pytest.approx(shared, abs=0.006)


def test_offset_scale_is_obeyed() -> None:
    assert OFFSETS["mean"]((1000, 4), generator(), 5.0).mean().item() == pytest.approx(5, abs=0.1)


def test_every_step_has_an_embedding_of_its_own() -> None:
    table = StepEmbedding(32, 16)()
    assert table.shape == (33, 16)
    assert torch.pdist(table.detach()).min() > 1e-4
