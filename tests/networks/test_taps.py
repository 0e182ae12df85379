import pytest
import torch
from torch import nn

from mmkd_plugin.networks import Tap, Taps, find_module


class Net(nn.Module):
    """One relu module used twice, in place, as mmpretrain's blocks do."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 1)
        self.bn = nn.BatchNorm2d(2)
        self.relu = nn.ReLU(inplace=True)
        self.split = nn.Identity()
        self.unused = nn.Linear(1, 1)

    def forward(self, x):
        x = self.relu(self.conv(x))
        x = self.relu(self.bn(x))
        return self.split((x, x * 2))


def record(model, *texts, **kwargs):
    taps = Taps(model, [Tap.parse(t) for t in texts], **kwargs)
    with taps.recording():
        model(torch.randn(2, 1, 3, 3, generator=torch.Generator().manual_seed(0)))
    return taps


@pytest.mark.parametrize('text', ['head.fc', 'a.b:input', 'backbone[2]', 'a:input[1]'])
def test_written_form_round_trip(text):
    assert str(Tap.parse(text)) == text


@pytest.mark.parametrize('text', ['', 'a:output', 'a[x]', 'a[1]b', ':input'])
def test_bad_syntax(text):
    with pytest.raises(ValueError, match='expected'):
        Tap.parse(text)


def test_not_a_string():
    with pytest.raises(TypeError, match='expected a string'):
        Tap.parse(3)  # type: ignore[arg-type]


def test_wrong_path_names_near_ones():
    with pytest.raises(ValueError, match=r"student \(Net\) has no module 'rellu'. Near names: relu.*list_modules"):
        find_module(Net(), 'rellu', 'student')


def test_wrong_leaf_lists_children():
    model = nn.Sequential(Net())
    with pytest.raises(ValueError, match="'0' has: conv, bn, relu, split, unused"):
        find_module(model, '0.layer4', 'teacher')


def test_output_equals_what_the_module_returned():
    torch.manual_seed(0)
    model = Net().eval()
    x = torch.randn(2, 1, 3, 3, generator=torch.Generator().manual_seed(0))
    values = record(model, 'split[1]', 'conv', clone={Tap('conv')}).values()
    assert torch.equal(values[Tap('conv')], model.conv(x))
    assert torch.equal(values[Tap('split', index=(1,))], 2 * model.bn(model.conv(x).relu()).relu())


def test_last_call_counts_and_calls_are_counted():
    model = Net().eval()
    taps = record(model, 'relu')
    assert taps.counts == {'relu': 2}
    x = torch.randn(2, 1, 3, 3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(taps.values()[Tap('relu')], model.bn(model.conv(x).relu()).relu())


def test_preactivation_is_read_by_input_tap_with_clone():
    model = Net().eval()
    tap = Tap('relu', of_input=True)
    taps = record(model, 'relu:input')
    assert taps.overwritten() == {tap}
    with pytest.raises(RuntimeError, match='in place after it had been tapped'):
        taps.values()
    x = torch.randn(2, 1, 3, 3, generator=torch.Generator().manual_seed(0))
    model.bn.bias.data -= 0.5
    value = record(model, 'relu:input', clone={tap}).values()[tap]
    assert torch.equal(value, model.bn(model.conv(x).relu()))
    assert value.min() < 0


def test_tuple_without_index_lists_the_members():
    with pytest.raises(TypeError, match=r"sequence of 2: \[\(2, 2, 3, 3\), .*'split\[0\]' ... 'split\[1\]'"):
        record(Net().eval(), 'split')


def test_module_that_does_not_run():
    taps = record(Net().eval(), 'unused', side='teacher')
    with pytest.raises(RuntimeError, match='teacher did not run unused'):
        taps.values()


def test_forward_ends_when_everything_was_read():
    model = Net().eval()
    ran = []
    model.bn.register_forward_hook(lambda *_: ran.append('bn'))
    record(model, 'conv', calls={'conv': 1}, clone={Tap('conv')}).values()
    assert ran == []
    record(model, 'relu', calls={'relu': 2}).values()
    assert ran == ['bn']


def test_hooks_are_gone_afterwards():
    model = Net().eval()
    record(model, 'relu:input', 'conv')
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    with pytest.raises(RuntimeError):
        taps = Taps(model, [Tap('conv')])
        with taps.recording():
            raise RuntimeError
    assert not any(m._forward_hooks for m in model.modules())


def test_nested_sequences():
    tap = Tap.parse('head[1][0]')
    assert (tap.path, tap.index, str(tap)) == ('head', (1, 0), 'head[1][0]')
    a, b = torch.zeros(1), torch.ones(1)
    assert tap.select((a, [b, a])) is b
    with pytest.raises(TypeError, match=r"'head\[1\]' meets a sequence of 2.*name one of them as 'head\[1\]\[0\]'"):
        Tap.parse('head[1]').select((a, [b, a]))
    with pytest.raises(TypeError, match=r"'head\[1\]\[0\]' meets one tensor \(1,\) at 'head\[1\]': drop"):
        tap.select((a, b))
    with pytest.raises(TypeError, match=r"'head\[3\]' meets a sequence of 2"):
        Tap.parse('head[3]').select((a, b))


def test_settled_by_the_run_of_another_module():
    """What counts is what was read before the last run of the head, not what is computed after it."""
    model = nn.Sequential(cut := nn.ReLU(), head := nn.Identity(), cut, head, nn.BatchNorm1d(2), cut)
    tap = Tap('0', of_input=True)
    recorded = Taps(model, [tap, Tap('0')], settle={'1': [tap]})
    x = torch.randn(3, 2)
    with recorded.recording():
        model(x)
    assert torch.equal(recorded.values()[tap], x.relu())
    assert torch.equal(recorded.values()[Tap('0')], model(x))
    assert recorded.peek(Tap('7')) is None
