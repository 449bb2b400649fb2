import math

import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, MultiStepLR, PolynomialLR

from detrex.engine import schedule


def make_optimizer() -> torch.optim.Optimizer:
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": lr} for lr in (1.0, 0.1)]
    return torch.optim.SGD(groups)


def rates(scheduler, iterations: int) -> list[float]:
    """Learning rate of the first group at iterations 0, 1, ..."""
    found = []
    for _ in range(iterations):
        found.append(scheduler.get_last_lr()[0])
        scheduler.optimizer.step()
        scheduler.step()
    return found


def test_warmup_is_a_line_from_its_factor_to_one():
    found = rates(schedule.constant(make_optimizer(), warmup_iters=4, warmup_factor=0.2), 6)
    assert found == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0, 1.0])


def test_multi_step_by_hand():
    found = rates(schedule.multi_step(make_optimizer(), [2, 5], gamma=0.1), 7)
    assert found == pytest.approx([1, 1, 0.1, 0.1, 0.1, 0.01, 0.01])


def test_groups_keep_their_proportion():
    scheduler = schedule.multi_step(make_optimizer(), [1], gamma=0.5)
    scheduler.optimizer.step()
    scheduler.step()
    assert scheduler.get_last_lr() == pytest.approx([0.5, 0.05])


def test_multi_step_agrees_with_torch():
    expected = rates(MultiStepLR(make_optimizer(), [3, 4, 8], gamma=0.3), 12)
    assert rates(schedule.multi_step(make_optimizer(), [3, 4, 8], gamma=0.3), 12) == pytest.approx(expected)


def test_cosine_agrees_with_torch():
    expected = rates(CosineAnnealingLR(make_optimizer(), T_max=10, eta_min=0.0), 10)
    assert rates(schedule.cosine(make_optimizer(), max_iter=10), 10) == pytest.approx(expected)


def test_cosine_ends_at_the_final_factor():
    found = rates(schedule.cosine(make_optimizer(), max_iter=4, final_factor=0.2), 6)
    middle = 0.2 + 0.8 * 0.5 * (1 + math.cos(math.pi / 2))
    assert (found[0], found[2], found[4], found[5]) == pytest.approx((1.0, middle, 0.2, 0.2))


def test_poly_agrees_with_torch():
    expected = rates(PolynomialLR(make_optimizer(), total_iters=10, power=0.9), 12)
    assert rates(schedule.poly(make_optimizer(), max_iter=10, power=0.9), 12) == pytest.approx(
        expected, abs=1e-12
    )


def test_warmup_multiplies_the_schedule():
    found = rates(schedule.poly(make_optimizer(), max_iter=10, power=1, warmup_iters=2, warmup_factor=0.5), 3)
    assert found == pytest.approx([0.5, 0.75 * 0.9, 0.8])


@pytest.mark.parametrize("milestones", [[5, 2], [3, 3], [0, 4]])
def test_milestones_must_increase(milestones):
    with pytest.raises(ValueError, match="milestones"):
        schedule.multi_step(make_optimizer(), milestones)


def test_negative_warmup_is_an_error():
    with pytest.raises(ValueError, match="warmup_iters"):
        schedule.constant(make_optimizer(), warmup_iters=-1)
