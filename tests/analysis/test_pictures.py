"""Pictures of teacher and students: what is in which panel, and what is refused."""

import copy
import functools
import runpy

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import MODELS, DefaultScope
from mmengine.structures import InstanceData
from mmengine.visualization import Visualizer

from mmkd_plugin.analysis import Gallery
from mmkd_plugin.analysis.comparison import is_map, look, read_map_pairs, reduce_map
from mmkd_plugin.analysis.painter import Painter
from mmkd_plugin.files.configs import config_path
from mmkd_plugin.networks import Tap
from mmkd_plugin.teachers import plain_student
from tests.end_to_end.helpers import ROOT, forked

pytestmark = pytest.mark.openmmlab

TEACHER = ROOT / 'mmkd_plugin/checkpoints/digit_scenes/faster_rcnn_teacher.pth'
SIZE, GAP, BAND = 160, 8, 20


@pytest.fixture(scope='module')
def students(tmp_path_factory):
    """Checkpoints of a distilled and a plain student, untrained; the distilled one with a loss's learnable parts."""
    folder = tmp_path_factory.mktemp('students')
    cfg = plain_student(read('dkd_faster_rcnn.py').model)
    for seed, name in enumerate(('distilled', 'plain')):
        torch.manual_seed(seed)
        with DefaultScope.overwrite_default_scope('mmdet'):
            state = MODELS.build(cfg).state_dict()
        if name == 'distilled':
            state['distill.losses.loss_review.0.weight'] = torch.ones(3)
        torch.save({'state_dict': state, 'meta': {}}, folder / f'{name}.pth')
    return {name: str(folder / f'{name}.pth') for name in ('distilled', 'plain')}


@pytest.fixture(scope='module')
def digits_student(tmp_path_factory):
    path = tmp_path_factory.mktemp('digits') / 'student.pth'
    cfg = read('dkd_resnet.py')
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        torch.save(MODELS.build(plain_student(cfg.model)).state_dict(), path)
    return str(path)


@functools.cache
def read(name):
    """A config; teachers given by their model, which takes less time to read than by name."""
    config = Config.fromfile(config_path(name))
    if config.model.type == 'Distilled' and config.default_scope == 'mmdet':
        teacher = read('digit_scenes/faster_rcnn_teacher.py').model.to_dict()
        config.model.teacher = {'model': teacher, 'checkpoint': str(TEACHER)}
    config.val_dataloader.dataset.serialize_data = False
    return config


def gallery(tmp_path, checkpoint, name='dkd_faster_rcnn.py', changes=None, **kwargs):
    config = copy.deepcopy(read(name))
    config.merge_from_dict(changes or {})
    return Gallery(config, str(checkpoint), tmp_path, **{'size': SIZE, **kwargs})


def teacher_as_student(tmp_path, **kwargs):
    """The shipped teacher, distilled from itself."""
    teacher = read('digit_scenes/faster_rcnn_teacher.py')
    keys = ('backbone', 'neck', 'rpn_head', 'roi_head')
    return gallery(tmp_path, TEACHER, changes={f'model.{key}': teacher.model[key].to_dict() for key in keys}, **kwargs)


def panels_of(picture):
    """The panels of square images, without captions."""
    count = (picture.shape[1] + GAP) // (SIZE + GAP)
    assert picture.shape == (BAND + SIZE, count * (SIZE + GAP) - GAP, 3)
    return [picture[BAND:, i * (SIZE + GAP) : i * (SIZE + GAP) + SIZE] for i in range(count)]


def captions(monkeypatch):
    """Titles and lines of text of the pictures that are composed from now on."""
    drawn: list[list[tuple[str, str]]] = []
    original = Painter.compose

    def compose(self, panels):
        drawn.append([panel[:2] for panel in panels])
        return original(self, panels)

    monkeypatch.setattr(Painter, 'compose', compose)
    return drawn


def differ(a, b):
    """Where panels differ visibly."""
    return np.abs(a.astype(int) - b.astype(int)).max(-1) > 30


class TestCommand:
    def test_draws_predictions_and_maps(self, tmp_path, students):
        out = forked(
            'tools/draw.py', 'configs/dkd_faster_rcnn.py', students['distilled'], '--plain', students['plain'],
            '--indices', 3, 17, '--tap', 'neck[1]', '--size', SIZE, '--out-dir', tmp_path / 'pictures',
        ).stdout  # fmt: skip
        assert 'image 3: predictions, neck-1' in out
        files = sorted(path.name for path in (tmp_path / 'pictures').iterdir())
        assert files == ['neck-1_17.png', 'neck-1_3.png', 'predictions_17.png', 'predictions_3.png']
        pictures = {name: panels_of(cv2.imread(str(tmp_path / 'pictures' / name))) for name in files}
        assert {len(panels) for panels in pictures.values()} == {4}
        assert not np.array_equal(pictures['predictions_3.png'][1], pictures['predictions_17.png'][1])
        for panels in (pictures['neck-1_3.png'], pictures['neck-1_17.png']):
            assert all(differ(panels[i], panels[j]).any() for i in range(4) for j in range(i))

    def test_mistakes_are_told_without_a_traceback(self, monkeypatch, capsys):
        monkeypatch.setattr('sys.argv', ['draw.py', config_path('dkd_faster_rcnn.py'), 'no/such.pth'])
        with pytest.raises(SystemExit, match=r"draw.py: checkpoint 'no/such.pth' of the distilled student does not"):
            runpy.run_path(str(ROOT / 'tools/draw.py'), run_name='__main__')


class TestPredictions:
    def test_columns_and_their_order(self, tmp_path, students, monkeypatch):
        drawn = captions(monkeypatch)
        gallery(tmp_path, students['distilled'], plain=students['plain']).draw(3)
        gallery(tmp_path, students['distilled']).draw(3)
        with_plain, without = ([title for title, _ in titles] for titles in drawn)
        assert with_plain == ['ground truth', 'teacher', 'plain student', 'distilled student']
        assert without == ['ground truth', 'teacher', 'distilled student']

    def test_a_student_that_is_the_teacher_is_drawn_like_it(self, tmp_path):
        found = teacher_as_student(tmp_path, taps=['neck[0]', 'backbone.layer4']).draw(3)
        truth, teacher, student = panels_of(found['predictions'])
        assert np.array_equal(teacher, student)
        assert differ(truth, teacher).any()
        for name in ('neck-0', 'backbone.layer4'):
            put_in, teacher, student = panels_of(found[name])
            assert np.array_equal(teacher, student)
            assert differ(put_in, teacher).any()

    def test_another_student_is_drawn_differently(self, tmp_path, students):
        _, teacher, student = panels_of(gallery(tmp_path, students['distilled']).draw(3)['predictions'])
        assert differ(teacher, student).any()

    def test_teacher_finds_what_is_there(self, tmp_path, monkeypatch):
        drawn = captions(monkeypatch)
        pictures = teacher_as_student(tmp_path, score_thr=0.5)
        pictures.draw(66)
        assert drawn[0][0] == ('ground truth', '5 boxes (test_0066.jpg)')
        assert drawn[0][1] == ('teacher', '5 boxes above 50%')

    def test_truth_is_in_the_images_pixels_whatever_the_pipeline_resizes_to(self, tmp_path, students):
        key = 'val_dataloader.dataset.pipeline'
        pipeline = read('dkd_faster_rcnn.py').test_pipeline
        before = [pipeline[0], pipeline[2], pipeline[1], pipeline[3]]  # boxes are read first, then resized
        before[2]['scale'] = (112, 112)
        small = gallery(tmp_path, students['distilled'], changes={key: before}, taps=['neck[2]'])
        large = gallery(tmp_path, students['distilled'], taps=[])
        assert np.array_equal(panels_of(small.draw(3)['predictions'])[0], panels_of(large.draw(3)['predictions'])[0])
        info = large.dataset.get_data_info(3)['instances']
        empty = large.painter.fit(cv2.imread(large.dataset.get_data_info(3)['img_path'])[..., ::-1])
        rows, columns = np.nonzero(differ(panels_of(large.draw(3)['predictions'])[0], empty))
        corners = np.array([one['bbox'] for one in info])
        assert abs(columns.max() - corners[:, 2].max()) <= 3
        assert abs(rows.max() - corners[:, 3].max()) <= 3

    def test_score_threshold(self, tmp_path):
        some, none = (teacher_as_student(tmp_path, score_thr=thr).draw(3)['predictions'] for thr in (0.3, 1.0))
        put_in = panels_of(none)[1]
        assert np.array_equal(panels_of(none)[1], panels_of(none)[2])
        assert differ(panels_of(some)[1], put_in).any()


class TestClassifiers:
    def test_class_and_score_stand_in_the_title(self, tmp_path, digits_student, monkeypatch):
        drawn = captions(monkeypatch)
        pictures = gallery(tmp_path, digits_student, 'dkd_resnet.py', taps=['backbone.layer2'])
        found = pictures.draw(666)
        assert list(found) == ['predictions', 'backbone.layer2']
        titles = drawn[0]
        assert titles[0] == ('ground truth', '6 (3466)')
        image = torch.tensor(pictures.dataset.get_data_info(666)['img']).permute(2, 0, 1)[None]
        for (name, text), model in zip(titles[1:], (c.model for c in pictures.contestants), strict=True):
            with torch.no_grad():
                scores = model.head.fc(model.extract_feat((image - 33.3) / 78.6)[-1]).softmax(1)[0]
            assert text == f'{int(scores.argmax())}, score {float(scores.max()):.3f}', name
        put_in, teacher, student = panels_of(found['backbone.layer2'])
        assert differ(teacher, student).any()
        assert np.array_equal(put_in, panels_of(found['predictions'])[0])


class TestMaps:
    def test_default_is_where_losses_read_maps(self, tmp_path, students, digits_student):
        none = gallery(tmp_path, students['distilled'])
        assert none.pairs == []
        levels = gallery(tmp_path, students['distilled'], 'digit_scenes/reviewkd_faster_rcnn.py')
        assert [str(pair.student) for pair in levels.pairs] == [f'neck[{i}]' for i in range(4)]
        mixed = gallery(tmp_path, digits_student, 'digits/reviewkd_resnet.py')
        assert [str(pair.teacher) for pair in mixed.pairs] == [
            f'backbone.layer{i}.1.relu:input' for i in range(1, 5)
        ]  # not the pooled vector

    def test_sides_that_differ(self):
        config = Config(dict(model=dict(losses={})))
        a, b = read_map_pairs(['x=y[1]', 'z:input'], config, ['teacher'])
        assert (str(a.student), str(a.teacher)) == ('x', 'y[1]')
        assert (str(b.student), str(b.teacher)) == ('z:input', 'z:input')
        assert len(read_map_pairs(['x'], config, ['one', 'two'])) == 2

    def test_each_model_is_read_at_its_own_tap(self, tmp_path, digits_student, monkeypatch):
        drawn = captions(monkeypatch)
        found = gallery(tmp_path, digits_student, 'dkd_resnet.py', taps=['backbone.layer1=backbone.layer3']).draw(0)
        assert list(found) == ['predictions', 'backbone.layer1--backbone.layer3']
        assert drawn[1][1][1].startswith('backbone.layer3  64×7×7  ')
        assert drawn[1][2][1].startswith('backbone.layer1  4×28×28  ')

    def test_what_is_overwritten_later_is_read_before(self, tmp_path, digits_student):
        tap = 'backbone.layer1.0.bn2'  # the block adds to it and rectifies it in place
        pictures = gallery(tmp_path, digits_student, 'dkd_resnet.py', taps=[tap])
        batch = pseudo_collate([pictures.dataset[0]])
        assert all(look(c, batch, pictures.pairs).values[Tap.parse(tap)].min() < 0 for c in pictures.contestants)

    def test_is_map(self):
        assert is_map(Tap.parse('neck[0]'), torch.zeros(1, 8, 5, 5))
        for path, shape in (('a', (1, 8)), ('a', (1, 8, 1, 1)), ('a', (50, 8, 7, 7)), ('roi_head.x', (1, 8, 7, 7))):
            assert not is_map(Tap.parse(path), torch.zeros(shape))
        assert not is_map(Tap.parse('a'), None)

    def test_padding_is_cut_off(self):
        value = torch.zeros(1, 1, 4, 4)
        value[..., 3] = 1.0  # lies over padding: the image is the left three quarters
        assert reduce_map(value, (64, 64), (64, 40), 'squeeze_mean').abs().max() == 0
        assert reduce_map(value, (64, 64), (64, 64), 'squeeze_mean')[:, 60].min() == 1
        assert reduce_map(value, (64, 64), (50, 40), 'squeeze_mean').shape == (50, 40)

    def test_channels(self):
        value = torch.stack([torch.full((2, 2), v) for v in (1.0, 5.0, -3.0)])[None]
        assert reduce_map(value, (2, 2), (2, 2), 'squeeze_mean').unique().tolist() == [1.0]
        assert reduce_map(value, (2, 2), (2, 2), 'select_max').unique().tolist() == [5.0]


class TestPainter:
    @pytest.fixture
    def painter(self):
        from mmdet.visualization import DetLocalVisualizer

        return Painter(DetLocalVisualizer(line_width=1), SIZE, 0.3)

    def test_boxes_and_masks_are_scaled(self, painter):
        image = np.full((40, 80, 3), 200, np.uint8)
        masks = torch.zeros(1, 40, 80, dtype=torch.bool)
        masks[:, 20:30, 40:60] = True
        found = InstanceData(
            bboxes=torch.tensor([[10.0, 5, 70, 35]]), labels=torch.tensor([0]), scores=torch.tensor([0.9])
        )
        panel = painter.boxes(image, found, truth=False)
        assert panel.shape == (160, 320, 3)
        rows, columns = np.nonzero(differ(panel, painter.fit(image)))
        assert np.allclose([rows.min(), rows.max(), columns.min(), columns.max()], [20, 140, 40, 280], atol=2)
        assert not differ(panel, painter.fit(image))[80:120, 160:240].any()
        found.masks = masks
        assert differ(painter.boxes(image, found, truth=False), panel)[84:116, 164:236].all()

    def test_shared_scale_keeps_what_is_weaker_weak(self, painter):
        ramp = torch.arange(16.0).reshape(4, 4)
        image = np.zeros((4, 4, 3), np.uint8)
        weak, strong = painter.heat([ramp, 10 * ramp], image, shared=False)
        assert np.array_equal(weak, strong)
        weak, strong = painter.heat([ramp, 10 * ramp], image, shared=True)
        assert np.array_equal(strong, painter.heat([10 * ramp], image, shared=False)[0])
        assert weak[..., 0].max() < 10 < strong[..., 0].max()  # no red

    def test_captions_do_not_touch_panels(self, painter):
        panel = np.full((SIZE, SIZE, 3), 7, np.uint8)
        long = 'a.very.long.path.of.a.module.in.a.deep.network ' * 3
        picture = painter.compose([('one', long, panel), ('two', '', panel)])
        assert all((one == 7).all() for one in panels_of(picture))
        assert (picture[:BAND, SIZE : SIZE + GAP] == 255).all()
        assert (picture[:BAND, :SIZE] < 128).any()


class TestRefusals:
    @pytest.mark.parametrize(
        ('kwargs', 'message'),
        [
            ({'taps': ['nek']}, r"no module 'nek'. Near names: neck"),
            ({'taps': ['roi_head.bbox_head.fc_cls']}, r"fc_cls' of the teacher has the shape \(\d+, 11\), expected a"),
            ({'taps': ['roi_head.bbox_head.loss_cls']}, r'does not run when it predicts'),
            ({'score_thr': 1.5}, r'score_thr=1.5.*expected a score from 0 to 1'),
            ({'reduction': 'max'}, r"reduction='max'.*squeeze_mean, select_max"),
            ({'plain': 'no/such.pth'}, r"'no/such.pth' of the plain student does not exist"),
            ({'changes': {'visualizer.type': 'Visualizer'}}, r'a Visualizer, which draws no boxes'),
            ({'changes': {'val_dataloader': None, 'test_dataloader': None}}, r'no val_dataloader'),
            ({'name': 'digit_scenes/faster_rcnn_student.py'}, r"model is 'FasterRCNN', expected type='Distilled'"),
        ],
    )
    def test_says_what_was_given_and_expected(self, tmp_path, students, kwargs, message):
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            gallery(tmp_path, students['distilled'], **kwargs)

    def test_a_tuple_is_no_map(self, tmp_path, students):
        with pytest.raises(TypeError, match=r"name one of them as 'neck\[0\]'"):
            gallery(tmp_path, students['distilled'], taps=['neck'])

    def test_weights_of_another_model(self, tmp_path, digits_student):
        with pytest.raises(ValueError, match='does not fit FasterRCNN'):
            gallery(tmp_path, digits_student)

    def test_indices(self, tmp_path, digits_student):
        pictures = gallery(tmp_path, digits_student, 'dkd_resnet.py')
        assert pictures.choose(4) == [0, 250, 500, 750]
        assert pictures.choose(indices=[3, 999, 3]) == [3, 999]
        for images, indices in ((0, None), (1001, None), (4, [1000]), (4, [-1]), (4, [])):
            with pytest.raises(ValueError, match='the validation data has 1000 images, indices 0 to 999'):
                pictures.choose(images, indices)

    def test_backends_of_the_config_get_the_pictures(self, tmp_path, digits_student):
        pictures = gallery(tmp_path, digits_student, 'dkd_resnet.py')
        assert isinstance(pictures.recorder, Visualizer)
        found = pictures.draw(7)
        written = cv2.imread(str(tmp_path / 'predictions_7.png'))[..., ::-1]
        assert np.array_equal(written, found['predictions'])
