"""Concepts in foreground and background: hand values, a naive count, refusals."""

import pytest
import torch

from mmkd_plugin.analysis.concepts import find_concepts


def test_hand_values():
    """Reference, section 27, test 3."""
    entropy = torch.zeros(1, 2, 2)
    entropy[0, 0, 0] = -0.3
    foreground = torch.zeros(1, 2, 2, dtype=torch.bool)
    foreground[0, 0, :] = True
    found = find_concepts(entropy, foreground)
    assert (int(found.foreground), int(found.background), float(found.ratio)) == (1, 0, 1.0)
    none = find_concepts(entropy, foreground, threshold=0.3)
    assert (int(none.foreground), float(none.ratio)) == (0, 0.0)  # more than the threshold, and 0 where there are none


@pytest.mark.parametrize('level', ['image', 'all'])
def test_as_counted_one_by_one(level):
    generator = torch.Generator().manual_seed(0)
    entropy = torch.randn(5, 4, 4, generator=generator)
    kind = torch.randint(3, (5, 4, 4), generator=generator)  # background, foreground, neither
    found = find_concepts(entropy, kind == 1, kind == 0, 0.5, level)
    means = [
        sum(float(entropy[n, y, x]) for y in range(4) for x in range(4) if kind[n, y, x] == 0)
        / int((kind[n] == 0).sum())
        for n in range(5)
    ]
    for n in range(5):
        mean = means[n] if level == 'image' else sum(means) / 5
        counts = [0, 0]
        for y in range(4):
            for x in range(4):
                if kind[n, y, x] < 2 and mean - float(entropy[n, y, x]) > 0.5:
                    counts[int(kind[n, y, x])] += 1
        assert [int(found.background[n]), int(found.foreground[n])] == counts
        assert float(found.ratio[n]) == pytest.approx(counts[1] / max(sum(counts), 1))
        assert int(found.cells[n].sum()) == sum(counts)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ({'foreground': torch.ones(1, 3, 2, dtype=torch.bool)}, 'masks torch.bool'),
        ({'foreground': torch.ones(1, 2, 2, dtype=torch.bool)}, r'images \[0\] have no background'),
        ({'background': torch.ones(1, 2, 2, dtype=torch.bool)}, 'no cell in both'),
        ({'background': torch.ones(1, 2, 2)}, 'masks torch.float32'),
        ({'threshold': -1}, 'threshold=-1 given'),
        ({'level': 'run'}, "level='run' given"),
    ],
)
def test_refusals(arguments, message):
    foreground = torch.tensor([[[True, False], [False, False]]])
    with pytest.raises(ValueError, match=message):
        find_concepts(**{'entropy': torch.zeros(1, 2, 2), 'foreground': foreground, **arguments})
