"""A stored teacher in a step: what is refused at the build, what it answers, when it runs."""

from types import SimpleNamespace
from unittest import mock

import pytest
import torch

from mmkd_plugin import distill
from mmkd_plugin.facts import Batch
from mmkd_plugin.networks import Tap
from mmkd_plugin.store import Header, Records, drawn
from mmkd_plugin.teachers import Frozen, Stored, build_source
from mmkd_plugin.teachers.network_spec import untrained
from mmkd_plugin.teachers.stored import Surroundings
from tests.conftest import DKD, KD, batch, build, student_cfg, trained_like
from tests.detection import LOGITS, detector, faster_rcnn_cfg

pytestmark = pytest.mark.openmmlab
FC = Tap('head.fc')


def network():
    return trained_like(build(student_cfg(), seed=7))


def live(source, *read):
    """What a teacher without a store says."""
    return Frozen.read(source, *read)


def spec(path, model=None, **store):
    return {'model': model or network(), 'store': {'path': str(path), 'views': 2, 'dtype': 'float32', **store}}


def surroundings(**changes):
    given = {'data': {'entries': 40, 'digest': 'x'}, 'pipeline': [['crop']], 'images': (1, 28, 28), 'views': 2}
    return Surroundings(**{**given, **changes})


def opened(path, losses=None, model=None, told=None, **store):
    """The stored teacher of a distilled student that is ready for the first step."""
    student = distill(build(student_cfg()), losses or KD, teacher=spec(path, model, **store))
    source = student.distill.sources['teacher']
    source.open(told or surroundings())
    student.distill.prepare(student, next(student.parameters()))
    return source


def shown(view, first=0, n=4):
    made = batch(n)
    for number, sample in enumerate(made['data_samples']):
        sample.set_metainfo({'sample_index': first + number, 'sample_view': view})
    images = made['inputs'] + first + 10 * view
    return Batch(images, made['data_samples'])


def test_what_was_kept_is_what_it_says(tmp_path):
    source = opened(tmp_path)
    expected = live(source, shown(1, 4), source.wanted)[FC]
    first = source.read(shown(1, 4), source.wanted)[FC]
    assert torch.equal(first, expected)
    again = opened(tmp_path)
    with mock.patch.object(Stored, 'computed', side_effect=AssertionError('ran')):
        assert torch.equal(again.read(shown(1, 4), again.wanted)[FC], first)
    # of other samples and views it knows nothing
    assert not again.records.written(0).any()
    assert again.records.written(1).nonzero()[0].tolist() == [4, 5, 6, 7]


def test_float16_says_the_same_when_it_writes_and_when_it_reads(tmp_path):
    source = opened(tmp_path, dtype='float16')
    first = source.read(shown(0), source.wanted)[FC]
    assert torch.equal(source.read(shown(0), source.wanted)[FC], first)
    exact = live(source, shown(0), source.wanted)[FC]
    assert 0 < (first - exact).abs().max() < 1e-2


def test_a_batch_is_computed_whole(tmp_path):
    source = opened(tmp_path)
    source.read(shown(0, 0, 2), source.wanted)
    with mock.patch.object(Stored, 'computed', autospec=True, side_effect=Stored.computed) as computed:
        source.read(shown(0, 0, 4), source.wanted)
    assert len(computed.call_args.args[1].images) == 4


def test_maps_keep_their_memory_format(tmp_path):
    on = {'on': 'backbone.layer4', 'type': 'FitNetLoss'}
    source = opened(tmp_path, {'loss_hint': on})
    (tap,) = source.wanted
    expected = live(source, shown(0), source.wanted)[tap]
    kept = source.read(shown(0), source.wanted)[tap]
    assert torch.equal(kept, expected)
    assert kept.stride() == expected.stride()


def test_a_complete_store_needs_no_weights(tmp_path):
    told, model = surroundings(data={'entries': 4, 'digest': 'x'}), network()
    source = opened(tmp_path, told=told, model=model)
    for view in range(2):
        source.read(shown(view), source.wanted)
    again = opened(tmp_path, told=told, model=model)
    assert again.asleep
    assert again.fingerprint == source.fingerprint


def test_losses_that_look_at_weights_get_them(tmp_path):
    ofd = {'loss_ofd': {'type': 'OFDLoss', 'on': 'backbone.layer4.1.relu:input'}}
    told, model = surroundings(data={'entries': 4, 'digest': 'x'}), network()
    for _ in range(2):
        source = opened(tmp_path, ofd, told=told, model=model)
        for view in range(2):
            source.read(shown(view), source.wanted)
        assert not source.asleep
    with mock.patch.object(Stored, 'computed', side_effect=AssertionError('ran')):
        source.read(shown(0), source.wanted)


def test_what_is_damaged_wakes_it(tmp_path):
    told, model = surroundings(data={'entries': 4, 'digest': 'x'}), network()
    source = opened(tmp_path, told=told, model=model)
    first = [source.read(shown(view), source.wanted)[FC] for view in range(2)]
    values = source.records.files(1)[0]
    raw = bytearray(values.read_bytes())
    raw[45] ^= 4
    values.write_bytes(raw)
    again = opened(tmp_path, told=told, model=model)
    assert again.asleep
    assert torch.equal(again.read(shown(0), again.wanted)[FC], first[0])
    assert again.asleep
    assert torch.equal(again.read(shown(1), again.wanted)[FC], first[1])
    assert not again.asleep
    assert values.read_bytes() != bytes(raw)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'data': {'entries': 40, 'digest': 'y'}}, r'data\.digest: "x" then, "y" now'),
        ({'pipeline': [['flip']]}, r'pipeline\[0\]\[0\]: "crop" then, "flip" now'),
        ({'images': (1, 32, 32)}, r'is of images of \(1, 28, 28\), and this run makes some of \(1, 32, 32\)'),
    ],
)
def test_other_surroundings_are_refused(tmp_path, changes, message):
    opened(tmp_path)
    with pytest.raises(ValueError, match=message):
        opened(tmp_path, told=surroundings(**changes))


def test_other_weights_are_refused(tmp_path):
    opened(tmp_path)
    with pytest.raises(ValueError, match=r'teacher\.weights: "weights .* then'):
        opened(tmp_path, model=trained_like(build(student_cfg(), seed=8)))


def test_another_seed_of_views_is_refused(tmp_path):
    opened(tmp_path)
    with pytest.raises(ValueError, match='seed: 0 then, 5 now'):
        opened(tmp_path, seed=5)


def test_other_versions_are_refused(tmp_path):
    opened(tmp_path)
    with mock.patch('mmkd_plugin.teachers.stored.versions', return_value={'numpy': 'numpy 0.1'}):
        with pytest.raises(ValueError, match=r'versions.numpy: .* then, "numpy 0.1" now'):
            opened(tmp_path)


def test_a_run_may_read_a_part_and_fill_all(tmp_path):
    model = network()
    both = {**KD, 'loss_hint': {'type': 'FitNetLoss', 'on': 'backbone.layer4'}}
    opened(tmp_path, both, model=model)
    source = opened(tmp_path, model=model)
    source.read(shown(0), {FC: None})
    whole = opened(tmp_path, both, model=model)
    with mock.patch.object(Stored, 'computed', side_effect=AssertionError('ran')):
        assert len(whole.read(shown(0), whole.wanted)) == 2


def test_more_views_may_follow(tmp_path):
    source = opened(tmp_path, views=1)
    source.read(shown(0), source.wanted)
    more = opened(tmp_path, views=9, told=surroundings(views=9))
    more.read(shown(8), more.wanted)
    assert more.records.views() == [0, 8]


def test_what_is_large_is_refused_before_the_first_step(tmp_path):
    with pytest.raises(ValueError, match=r'take 40 B for each sample and view, more than record_limit=20'):
        opened(tmp_path, record_limit=20)


class TestTopK:
    def test_losses_of_one_temperature(self, tmp_path):
        source = opened(tmp_path, keep=3)
        form = source.records.header.forms['head.fc']
        assert (form.keep, form.temperatures) == (3, (4.0,))
        kept = (source.read(shown(0), source.wanted)[FC] / 4).softmax(1)
        whole = (live(source, shown(0), source.wanted)[FC] / 4).softmax(1)
        top = whole.topk(3).indices
        torch.testing.assert_close(kept.gather(1, top), whole.gather(1, top))
        assert (kept - whole).abs().max() > 1e-4

    @pytest.mark.parametrize('losses', [
        DKD, {'loss_kd': {**KD['loss_kd'], 'standardize': True}},
        {'loss_hint': {'type': 'FitNetLoss', 'on': 'backbone.layer4'}},
    ])  # fmt: skip
    def test_losses_that_read_more_are_refused(self, tmp_path, losses):
        with pytest.raises(ValueError, match=r"reads more of .* keep=3, .* say keep='all'"):
            opened(tmp_path, losses, keep=3)

    def test_two_temperatures_are_refused(self, tmp_path):
        losses = {**KD, 'loss_two': {**KD['loss_kd'], 'temperature': 2.0}}
        with pytest.raises(ValueError, match=r'at the temperature 2, another loss at 4'):
            opened(tmp_path, losses, keep=3)

    def test_a_temperature_that_was_not_kept(self, tmp_path):
        opened(tmp_path, keep=3, temperatures=[1.0])
        other = {'loss_kd': {**KD['loss_kd'], 'temperature': 2.0}}
        with pytest.raises(ValueError, match=r'for the temperatures \[1.0, 4.0\], and this run reads it at 2'):
            opened(tmp_path, other, keep=3)
        opened(tmp_path, {'loss_kd': {**KD['loss_kd'], 'temperature': 1.0}}, keep=3)

    def test_more_than_there_are(self, tmp_path):
        with pytest.raises(ValueError, match=r"'head.fc' of teacher: keep=10 given of 10 classes"):
            opened(tmp_path, keep=10)


def test_other_kinds_of_teachers_have_none(tmp_path):
    for kind in ('Own', 'Labels', 'Peer', 'Route', 'Average'):
        with pytest.raises(ValueError, match=f'{kind}.* has a store, and only what a frozen teacher says'):
            build_source({'type': kind, 'store': {'path': str(tmp_path), 'views': 2}}, 'teacher', build(student_cfg()))


def test_what_goes_through_it_is_refused(tmp_path):
    through = {'loss_kd': {**KD['loss_kd'], 'on': {'student': 'backbone', 'teacher': 'head.fc'}, 'through': 'backbone'}}
    with pytest.raises(ValueError, match='has a store, and a pass that goes on with what the student computed'):
        opened(tmp_path, through)


def test_nobody_told_of_the_data(tmp_path):
    student = distill(build(student_cfg()), KD, teacher=spec(tmp_path))
    with pytest.raises(RuntimeError, match="add dict\\(type='DistillHook'\\)"):
        student.forward(**batch(), mode='loss')


def test_images_of_another_size(tmp_path):
    source = opened(tmp_path)
    other = shown(0)
    other.images = torch.zeros(4, 1, 32, 28)
    with pytest.raises(ValueError, match=r'images of \(1, 32, 28\) given, those of its store are \(1, 28, 28\)'):
        source.read(other, source.wanted)


def test_what_is_not_finite_is_not_kept(tmp_path):
    source = opened(tmp_path)
    odd = shown(0)
    odd.images = odd.images * torch.nan
    with pytest.raises(FloatingPointError, match=r"'head.fc' of teacher: the teacher gives values that are not finite"):
        source.read(odd, source.wanted)
    assert source.records.views() == []


def sample(**told):
    return SimpleNamespace(metainfo={'sample_view': 1, 'sample_index': 3, **told})


def test_who_is_in_a_batch():
    view, indices = drawn([sample(), sample(sample_index=0)], 2, 'teacher')
    assert (view, indices.tolist()) == (1, [3, 0])


@pytest.mark.parametrize(
    ('samples', 'message'),
    [
        (None, 'samples that tell their index and view'),
        ([sample(sample_view=None)], "EpochSeedHook', by_sample=True"),
        ([sample(sample_index=None)], 'samples that tell'),
        ([sample(sample_index=-1)], 'the pipeline refused an image'),
        ([sample(), sample(sample_view=2)], r'images of the views \[1, 2\]'),
    ],
)
def test_who_does_not_tell(samples, message):
    with pytest.raises(RuntimeError, match=message):
        drawn(samples, len(samples or [1]), 'teacher')


def test_tools_that_look_at_shapes_need_no_store(tmp_path):
    assert untrained(spec(tmp_path)).keys() == {'model', 'untrained'}


def test_two_runs_begin_one_store(tmp_path):
    one, other = opened(tmp_path), opened(tmp_path)
    one.read(shown(0), one.wanted)
    with mock.patch.object(Stored, 'computed', side_effect=AssertionError('ran')):
        other.read(shown(0), other.wanted)
    header = Header.of(tmp_path)
    assert header is not None
    assert Records(tmp_path, header).written(0).sum() == 4


def test_rois_are_refused_and_maps_of_detectors_are_not(tmp_path):
    model = {'model': detector(faster_rcnn_cfg(), seed=1), 'store': {'path': str(tmp_path), 'views': 2}}
    kd = {'loss_kd': {'type': 'KDLoss', 'on': LOGITS}}
    with pytest.raises(ValueError, match='scores RoIs, which the student samples anew in each step'):
        distill(detector(faster_rcnn_cfg()), kd, teacher=model)
    model['model'] = detector(faster_rcnn_cfg(), seed=1)
    distill(detector(faster_rcnn_cfg()), {'loss_map': {'type': 'FitNetLoss', 'on': 'neck[3]'}}, teacher=model)
