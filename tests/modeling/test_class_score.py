"""What class logits mean: losses against torchvision and torch, costs and probabilities by hand."""

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck
from torchvision.ops import sigmoid_focal_loss

from detrex.modeling import ClassTargets, SigmoidScore, SoftmaxScore


@pytest.mark.parametrize(("alpha", "gamma"), [(0.25, 2.0), (0.6, 1.0), (0.5, 0.0)])
def test_focal_loss_is_torchvisions(alpha, gamma):
    logits = 3 * torch.randn(2, 7, 5)
    labels = torch.randint(0, 6, (2, 7))
    truth = torch.zeros(2, 7, 5)
    for b, q in ((b, q) for b in range(2) for q in range(7)):
        if labels[b, q] < 5:
            truth[b, q, labels[b, q]] = 1
    ours, weight = SigmoidScore(alpha, gamma).loss(logits, ClassTargets(labels))
    assert weight is None
    torch.testing.assert_close(ours, sigmoid_focal_loss(logits, truth, alpha, gamma).sum(-1))


def test_focal_loss_has_finite_gradients_at_extreme_logits():
    logits = torch.tensor([[[100.0, -100, 0], [-100, 100, 0]]], requires_grad=True)
    SigmoidScore().loss(logits, ClassTargets(torch.tensor([[0, 0]])))[0].sum().backward()
    assert logits.grad.isfinite().all()


def test_gradient_of_the_focal_loss():
    targets = ClassTargets(torch.tensor([[0, 2, 3]]))
    logits = torch.randn(1, 3, 3, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda x: SigmoidScore().loss(x, targets)[0], (logits,))


def test_softmax_loss_is_torchs_weighted_mean():
    logits, labels = torch.randn(2, 7, 6), torch.randint(0, 6, (2, 7))
    labels[0, :3] = 5
    loss, weight = SoftmaxScore(no_object_weight=0.1).loss(logits, ClassTargets(labels))
    expected = F.cross_entropy(
        logits.flatten(0, 1), labels.flatten(), weight=torch.tensor([1, 1, 1, 1, 1, 0.1])
    )
    torch.testing.assert_close(loss.sum() / weight.sum(), expected)


@pytest.mark.parametrize("score", [SigmoidScore(), SigmoidScore(0.6, 1.0), SoftmaxScore(focal_cost=True)])
def test_a_focal_cost_is_what_the_loss_would_change(score):
    alpha, gamma = (score.alpha, score.gamma) if isinstance(score, SigmoidScore) else (0.25, 2.0)
    logits = 3 * torch.randn(7, 5)
    labels = torch.randint(0, 5, (7, 4))  # rows differ: predictions may be class-agnostic
    cost = score.cost(logits, labels)
    assert cost.shape == (7, 4)
    for query, row in enumerate(labels.tolist()):
        for obj, label in enumerate(row):
            x = logits[query, label]
            yes, no = (sigmoid_focal_loss(x, torch.full_like(x, t), alpha, gamma) for t in (1.0, 0.0))
            torch.testing.assert_close(cost[query, obj], yes - no, atol=1e-4, rtol=1e-4)


def test_the_cost_of_a_softmax_is_the_negative_probability():
    logits, labels = torch.randn(7, 6), torch.tensor([[0, 4, 4]]).expand(7, 3)
    expected = -logits.exp() / logits.exp().sum(-1, keepdim=True)
    torch.testing.assert_close(SoftmaxScore().cost(logits, labels), expected[:, [0, 4, 4]])


def test_costs_are_finite_at_extreme_logits():
    logits, labels = torch.tensor([[300.0, -300.0]]), torch.tensor([[0, 1]])
    assert SigmoidScore().cost(logits, labels).isfinite().all()


def test_new_sigmoid_classifiers_say_one_percent():
    layer = SigmoidScore().classifier(8, 5)
    torch.testing.assert_close(layer(torch.zeros(2, 8)).sigmoid(), torch.full((2, 5), 0.01))


@pytest.mark.parametrize(("score", "more"), [(SigmoidScore(), 0), (SoftmaxScore(), 1)])
@pytest.mark.parametrize("classes", [1, 80])
def test_classifiers_have_a_logit_for_no_object_where_it_is_a_class(score, more, classes):
    assert score.num_logits(classes) == score.classifier(8, classes).out_features == classes + more


def test_probabilities_of_a_sigmoid():
    logits = torch.randn(7, 5)
    found = SigmoidScore(temperature=0.2).probabilities(logits)
    yes = 1 / (1 + (-logits).exp())
    torch.testing.assert_close(found.independent, yes)
    torch.testing.assert_close(found.exclusive, (5 * yes).exp() / (5 * yes).exp().sum(-1, keepdim=True))
    torch.testing.assert_close(found.certainty, yes.max(-1).values)


def test_probabilities_of_a_softmax():
    logits = torch.tensor([[1.0, 3.0, 0.0], [1.0, 0.0, 2.0]])
    found = SoftmaxScore().probabilities(logits)
    expected = (logits.exp() / logits.exp().sum(-1, keepdim=True))[:, :2]
    for classes in (found.independent, found.exclusive):
        torch.testing.assert_close(classes, expected)
    torch.testing.assert_close(found.certainty, torch.stack([expected[0, 1], torch.tensor(-1.0)]))


@pytest.mark.parametrize("score", [SigmoidScore(), SoftmaxScore()])
def test_all_pairs_weigh_alike_where_quality_is_not_asked_for(score):
    assert not score.uses_quality
    weights = score.pair_weights(torch.randn(4), torch.rand(4), torch.tensor([0, 0, 1, 2]))
    assert weights.tolist() == [1, 1, 1, 1]
