"""Layers prepared for prediction against the same layers before that."""

import copy
import io

import pytest
import timm
import torch
from timm.layers import freeze_batch_norm_2d
from torch import nn
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from detrex.layers import FeedForward, prepare_for_prediction, use_onednn
from detrex.layers.onednn import onednn_works
from detrex.layers.prediction import PredictionConv2d


class Net(nn.Module):
    """Convolutions with a norm of their own, one whose result has a second use, and one that runs twice."""

    def __init__(self):
        super().__init__()
        self.plain, self.norm = nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8)
        self.shared, self.shared_norm = nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8)
        self.twice, self.twice_norm = nn.Conv2d(8, 8, 3, padding=1, groups=2, bias=False), nn.BatchNorm2d(8)
        self.returned, self.returned_norm = nn.Conv2d(8, 4, 1), nn.BatchNorm2d(4)
        self.linear = nn.Linear(4, 5)

    def forward(self, x):
        x = self.norm(self.plain(x)).relu()
        y = self.shared(x)
        x = self.shared_norm(y) + y
        x = self.twice_norm(self.twice(self.twice(x)))
        y = self.returned(x)
        return y, self.linear(self.returned_norm(y).permute(0, 2, 3, 1))


def with_statistics(model):
    for module in model.modules():
        if hasattr(module, "running_var"):
            for name in ("weight", "running_var"):
                getattr(module, name).data.uniform_(0.5, 2)
            for name in ("bias", "running_mean"):
                getattr(module, name).data.normal_()
    return model


@pytest.fixture(params=["frozen", "running"])
def nets(request):
    """A network before and after; its batch norms are frozen or not."""
    torch.manual_seed(0)
    plain = with_statistics(Net())
    if request.param == "frozen":
        plain = freeze_batch_norm_2d(plain)
    plain.eval()
    prepared = copy.deepcopy(plain)
    use_onednn(prepared)
    prepare_for_prediction(prepared, lambda: prepared(torch.zeros(1, 3, 8, 8)))
    return plain, prepared


@pytest.fixture
def image():
    return torch.randn(2, 3, 21, 17)


def assert_agree(found, expected, **tolerance):
    for output, reference in zip(found, expected, strict=True):
        torch.testing.assert_close(output, reference, **tolerance)


def test_what_is_folded(nets):
    _, prepared = nets
    with torch.no_grad():
        found = {name: m for name, m in prepared.named_modules() if isinstance(m, PredictionConv2d)}
        folded = [name for name, m in found.items() if m.folds()]
    assert folded == ["plain"]


def test_results_and_names_stay(nets, image):
    plain, prepared = nets
    with torch.inference_mode():
        for x in (image, image[:, :, :9], image[:1].contiguous(memory_format=torch.channels_last)):
            assert_agree(prepared(x), plain(x))
    with torch.no_grad(), torch.backends.mkldnn.flags(enabled=False):
        assert_agree(prepared(image), plain(image))
    assert_agree(prepared.state_dict().values(), plain.state_dict().values())
    assert list(prepared.state_dict()) == list(plain.state_dict())


def test_a_resnet_is_folded_whole(image):
    plain = with_statistics(freeze_batch_norm_2d(timm.create_model("resnet10t", features_only=True))).eval()
    prepared = copy.deepcopy(plain)
    prepare_for_prediction(prepared, lambda: prepared(torch.zeros(1, 3, 64, 64)))
    with torch.no_grad():
        convolutions = [m for m in prepared.modules() if isinstance(m, nn.Conv2d)]
        assert convolutions and all(m.folds() for m in convolutions)
        assert_agree(prepared(image), plain(image), atol=1e-4, rtol=1e-4)


def test_lower_precision_stays_lower(nets, image):
    plain, prepared = nets
    expected = plain(image)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        found = prepared(image)
        assert {y.dtype for y in found} == {torch.bfloat16}
        assert_agree([y.float() for y in found], expected, atol=0.15, rtol=0.05)


@pytest.mark.skipif(not onednn_works(torch.bfloat16), reason="this processor has no products of bfloat16")
@pytest.mark.parametrize("rows", [300, 9000])  # below and above what goes through both layers in blocks
def test_feed_forward_layers_of_lower_precision_go_to_onednn(rows):
    plain = FeedForward(128, 256).eval()
    prepared = copy.deepcopy(plain)
    use_onednn(prepared)
    prepare_for_prediction(prepared, lambda: None)
    x = torch.randn(2, rows // 2, 128)
    with torch.inference_mode():
        expected = plain.double()(x.double())
        with torch.autocast("cpu", torch.bfloat16), profile(activities=[ProfilerActivity.CPU]) as operators:
            found = prepared(x)
    assert {event.name for event in operators.events()} >= {"mkldnn::_linear_pointwise"}
    torch.testing.assert_close(found.double(), expected, atol=0.05, rtol=0.02)


def test_new_weights_count_at_once(nets, image):
    plain, prepared = nets
    with torch.no_grad():
        prepared(image)
        for net in nets:
            net.plain.weight.mul_(2)
            net.norm.running_mean.add_(1)
        assert_agree(prepared(image), plain(image))
        other = with_statistics(copy.deepcopy(plain)).state_dict()
        for net in nets:
            net.load_state_dict(other)
        assert_agree(prepared(image), plain(image))


def test_training_goes_on_as_before(nets, image):
    gradients = []
    for net in nets:
        with torch.no_grad():
            net(image)
        net.train()
        sum(y.square().mean() for y in net(image)).backward()
        gradients.append([p.grad for p in net.parameters()])
        with torch.no_grad():  # batch norms take the batch's statistics here
            gradients[-1].extend(net(image))
    assert_agree(*gradients)


def test_copies_and_files_leave_prepared_weights_out(nets, image):
    plain, prepared = nets
    with torch.no_grad():
        expected = prepared(image)
        file = io.BytesIO()
        torch.save(prepared, file)
        file.seek(0)
        for other in (copy.deepcopy(prepared), torch.load(file, weights_only=False)):
            other.norm.bias.add_(1)
            assert not torch.allclose(other(image)[0], expected[0])
        assert_agree(prepared(image), plain(image))


def test_counting_operators_counts_those_of_the_model(nets, image):
    counts = []
    for net in nets:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            net(image)
        counts.append(counter.get_total_flops())
    assert counts[0] == counts[1] > 0


def test_layers_with_hooks_stay(image):
    net = with_statistics(Net()).eval()
    net.plain.register_forward_hook(lambda _, __, y: 2 * y)
    with torch.no_grad():
        expected = net(image)
        prepare_for_prediction(net, lambda: net(image))
        assert type(net.plain) is nn.Conv2d
        assert_agree(net(image), expected)
