"""`tools/publish_model.py`: what it writes, what it says, and what it leaves alone."""

import copy
import hashlib
import importlib.util
import math
import os

import pytest
import torch
from mmengine.config import Config
from mmengine.logging import MessageHub
from mmengine.registry import MODELS

from mmkd_plugin.files.configs import config_path
from mmkd_plugin.teachers.network_spec import model_of
from tests.end_to_end.helpers import ROOT

spec = importlib.util.spec_from_file_location('publish_model', ROOT / 'tools/publish_model.py')
assert spec is not None
assert spec.loader is not None
tool = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tool)

CONFIG = 'configs/dkd_resnet.py'


@pytest.fixture(scope='module')
def weights():
    return MODELS.build(model_of(Config.fromfile(config_path('dkd_resnet.py')), 'dkd')).state_dict()


@pytest.fixture
def source(tmp_path, weights):
    """A checkpoint as mmengine writes it for a distilled student with a learnable loss."""
    parameter = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.SGD([parameter], lr=0.1, momentum=0.9)
    parameter.sum().backward()
    optimizer.step()
    checkpoint = {
        'meta': {'epoch': 3, 'cfg': 'text', 'dataset_meta': {'classes': ('zero', 'one')}},
        'state_dict': {**weights, 'distill.losses.loss_hint.0.regressor.weight': torch.ones(2, 2)},
        'message_hub': MessageHub('publishing').state_dict(),
        'optimizer': optimizer.state_dict(),
        'param_schedulers': [],
        'kcd': {'round': 1},
    }
    path = tmp_path / 'run' / 'epoch_3.pth'
    path.parent.mkdir()
    torch.save(checkpoint, path)
    return path


@pytest.fixture
def publish(capsys, monkeypatch):
    """The command in this process: its exit code, output and errors."""
    monkeypatch.chdir(ROOT)

    def run(*arguments):
        code = 0
        try:
            tool.main([str(argument) for argument in arguments])
        except SystemExit as error:
            # what python does with it
            code = error.code if isinstance(error.code, int) else 1
            if isinstance(error.code, str):
                print(error.code, file=tool.sys.stderr)
        out, err = capsys.readouterr()
        return code, out, err

    return run


def refused(done, *said):
    code, out, err = done
    assert code == 1
    assert all(text in err for text in said), err
    assert 'Traceback' not in err
    assert 'published model is' not in out


def test_writes_the_plain_student_and_says_so(publish, source, tmp_path, weights):
    before = source.read_bytes()
    code, out, err = publish(source, tmp_path / 'new/folder/student.pth', '--config', CONFIG)
    (path,) = (tmp_path / 'new/folder').iterdir()
    assert (code, err) == (0, '')
    assert path.name == f'student-{hashlib.sha256(path.read_bytes()).hexdigest()[:8]}.pth'
    assert f'The published model is {path}' in out
    published = torch.load(path, weights_only=True)
    assert published['meta'] == {'dataset_meta': {'classes': ('zero', 'one')}}
    assert set(published['state_dict']) == set(weights)
    assert all(torch.equal(published['state_dict'][key], value) for key, value in weights.items())
    for dropped in (
        'message_hub',
        'optimizer',
        'param_schedulers',
        'kcd',
        'meta.epoch',
        'meta.cfg',
        '1 distill. tensors',
    ):
        assert dropped in out.split('dropped:')[1]
    assert f'kept:    {len(weights)} tensors' in out
    assert f'{source.stat().st_size:,} bytes before, {path.stat().st_size:,} bytes now' in out
    assert source.read_bytes() == before


@pytest.mark.parametrize('target', ['epoch_3.pth', 'epoch_3', './epoch_3.pth'])
def test_target_that_is_the_source_leaves_it_whole(publish, source, target):
    before = source.read_bytes()
    code, _, _ = publish(source, source.parent / target, '--force')
    assert code == 0
    assert source.read_bytes() == before
    assert len(os.listdir(source.parent)) == 2


def test_existing_target_is_not_touched(publish, source, tmp_path):
    (tmp_path / 'student.pth').write_text('mine')
    assert publish(source, tmp_path / 'student.pth')[0] == 0
    assert (tmp_path / 'student.pth').read_text() == 'mine'


def test_publishing_again_is_no_error_and_writes_nothing(publish, source, tmp_path):
    publish(source, tmp_path / 'out/student.pth')
    (path,) = (tmp_path / 'out').iterdir()
    written = path.stat().st_mtime_ns
    code, out, err = publish(source, tmp_path / 'out/student.pth')
    assert (code, err) == (0, '')
    assert f'is there already: {path}' in out
    assert path.stat().st_mtime_ns == written
    assert os.listdir(path.parent) == [path.name]


def test_final_name_with_other_content_is_replaced_only_by_force(publish, source, tmp_path):
    publish(source, tmp_path / 'out/student.pth')
    (path,) = (tmp_path / 'out').iterdir()
    whole = path.read_bytes()
    path.write_bytes(b'damaged')
    refused(publish(source, tmp_path / 'out/student.pth'), 'exists and has other content', '--force')
    assert path.read_bytes() == b'damaged'
    assert publish(source, tmp_path / 'out/student.pth', '--force')[0] == 0
    assert path.read_bytes() == whole


def test_source_under_the_final_name_is_never_overwritten(publish, source, tmp_path):
    publish(source, tmp_path / 'out/student.pth')
    (path,) = (tmp_path / 'out').iterdir()
    path.unlink()
    path.symlink_to(source)
    before = source.read_bytes()
    refused(publish(source, tmp_path / 'out/student.pth', '--force'), 'is the checkpoint itself')
    assert source.read_bytes() == before


def test_names_with_dots_are_kept(publish, source, tmp_path):
    publish(source, tmp_path / 'out/r18.v2')
    (path,) = (tmp_path / 'out').iterdir()
    assert path.name.startswith('r18.v2-')


@pytest.mark.parametrize(
    ('checkpoint', 'said'),
    [
        ({}, 'has no weights'),
        ({'state_dict': {}}, "no weights under 'state_dict'"),
        ({'state_dict': None, 'meta': None}, "no weights under 'state_dict'"),
        ({'model': {'a': torch.ones(1)}}, "state_key='model'"),
        ({'a': torch.ones(1), 'epoch': 3}, 'holds more than tensors: epoch'),
        ({'a': torch.tensor([1, 2])}, 'no floating-point tensors'),
        ({'a': torch.tensor([math.nan])}, 'NaN or infinite weights'),
        ([1], 'holds a list'),
    ],
)
def test_what_is_no_student_is_not_published(publish, tmp_path, checkpoint, said):
    torch.save(checkpoint, tmp_path / 'x.pth')
    refused(publish(tmp_path / 'x.pth', tmp_path / 'student.pth'), 'publish_model.py: ', said)
    assert os.listdir(tmp_path) == ['x.pth']


@pytest.mark.parametrize('meta', [None, [], {'epoch': 1}])
def test_odd_meta_data(publish, tmp_path, meta):
    torch.save({'meta': meta, 'state_dict': {'a': torch.ones(1)}}, tmp_path / 'x.pth')
    code, out, _ = publish(tmp_path / 'x.pth', tmp_path / 'student.pth')
    assert code == 0
    assert 'kept:    1 tensors with 1 numbers\n' in out


def test_bare_weights_lose_nothing(publish, tmp_path, weights):
    torch.save(weights, tmp_path / 'x.pth')
    code, out, _ = publish(tmp_path / 'x.pth', tmp_path / 'student.pth', '--config', 'configs/digits/resnet_student.py')
    assert code == 0
    assert 'dropped: nothing' in out


def test_other_key(publish, tmp_path, weights):
    averaged = {'steps': torch.tensor(3), **{f'module.{key}': value for key, value in weights.items()}}
    torch.save({'state_dict': {'a': torch.ones(1)}, 'ema_state_dict': averaged}, tmp_path / 'x.pth')
    code, out, _ = publish(
        tmp_path / 'x.pth', tmp_path / 'out/a.pth', '--state-key', 'ema_state_dict', '--config', CONFIG
    )
    assert code == 0
    assert 'dropped: state_dict, 1 counters of averaging' in out


def test_weights_must_fit_the_config(publish, tmp_path, weights):
    wrong = copy.copy(weights)
    wrong['head.fc.weight'] = torch.ones(3, 32)
    wrong['teacher.x'] = torch.ones(1)
    del wrong['head.fc.bias']
    torch.save({'state_dict': wrong}, tmp_path / 'x.pth')
    refused(
        publish(tmp_path / 'x.pth', tmp_path / 'out/student.pth', '--config', CONFIG),
        "does not fit the student (ImageClassifier) of 'configs/dkd_resnet.py'",
        '1 missing (in the model, not in the file): head.fc.bias',
        'teacher.x',
        'head.fc.weight: (3, 32) in the file',
    )
    assert os.listdir(tmp_path) == ['x.pth']


def test_other_mistakes_are_one_line(publish, source, tmp_path):
    (tmp_path / 'broken.py').write_text("model = dict(type='Nothing')\n")
    (tmp_path / 'syntax.py').write_text('model = dict(\n')
    (tmp_path / 'no_folder').touch()
    for arguments, said in [
        ((tmp_path / 'none.pth', 'a.pth'), 'does not exist'),
        ((source, tmp_path), 'is a folder'),
        ((source, f'{tmp_path}/new/'), 'is a folder'),
        ((source, tmp_path / 'no_folder/a.pth'), 'no_folder'),
        ((source, tmp_path / 'a.pth', '--config', 'none.py'), "config 'none.py' does not exist"),
        ((source, tmp_path / 'a.pth', '--config', tmp_path / 'broken.py'), 'cannot be built'),
        ((source, tmp_path / 'a.pth', '--config', tmp_path / 'syntax.py'), 'cannot be built'),
    ]:
        refused(publish(*arguments), said)
    assert not list(tmp_path.glob('*.pth'))


def test_nothing_half_done_is_left(publish, source, tmp_path, monkeypatch):
    def full(*_):
        raise OSError('disk full')

    monkeypatch.setattr(os, 'fsync', full)
    refused(publish(source, tmp_path / 'out/student.pth'), 'disk full')
    assert os.listdir(tmp_path / 'out') == []


def test_exits_are_no_model(publish, tmp_path, weights):
    state = {**weights, 'distill.peers.exits.0.fc.weight': torch.ones(10, 32)}
    torch.save({'state_dict': state}, tmp_path / 'x.pth')
    config = ('--config', 'configs/digits/byot_resnet.py')
    refused(
        publish(tmp_path / 'x.pth', tmp_path / 'a.pth', '--peer', 'exits', *config),
        "'exits' is a Exits, and no model of its own",
    )
