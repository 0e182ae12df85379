import os
import pickle

import pytest
import torch
from mmengine.logging import MessageHub
from torch import nn

from mmkd_plugin.checkpoint import load_exactly, read_checkpoint, state_dict_of


class Evil:
    """Pickled as a call of a function."""

    def __reduce__(self):
        return exec, ('raise SystemExit("code from a checkpoint ran")',)


def save(path, obj):
    torch.save(obj, path)
    return str(path)


def test_mmengine_run_state_is_readable_without_pickle(tmp_path):
    hub = MessageHub('reading')
    hub.update_scalar('train/loss', torch.tensor(1.5))
    hub.update_info('iter', 3)
    source = save(tmp_path / 'a.pth', {'state_dict': {}, 'message_hub': hub.state_dict()})
    history = read_checkpoint(source)['message_hub']['log_scalars']['train/loss']
    assert history.mean() == 1.5


def test_one_cycle_schedules_are_readable(tmp_path):
    from mmengine.optim import OneCycleLR
    from mmengine.optim.scheduler.param_scheduler import OneCycleParamScheduler

    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    state = OneCycleLR(optimizer, eta_max=0.1, total_steps=10).state_dict()
    loaded = read_checkpoint(save(tmp_path / 'a.pth', {'param_schedulers': [state]}))
    assert loaded['param_schedulers'][0]['anneal_func'] is OneCycleParamScheduler._annealing_cos


def test_pickled_code_is_refused_and_named(tmp_path):
    with pytest.raises(ValueError, match=r'pickled Python objects \(exec\).*trust_pickle=True'):
        read_checkpoint(save(tmp_path / 'a.pth', {'state_dict': Evil()}))


def test_getattr_in_a_checkpoint_reaches_nothing_else(tmp_path):
    class Reach:
        def __reduce__(self):
            return getattr, (torch.Tensor, '__init_subclass__')

    with pytest.raises(ValueError, match='pickled Python objects'):
        read_checkpoint(save(tmp_path / 'a.pth', {'x': Reach()}))


def test_trust_pickle_is_an_opt_in(tmp_path):
    source = save(tmp_path / 'a.pth', {'state_dict': {}, 'extra': pickle.PickleBuffer})
    with pytest.raises(ValueError, match='pickled'):
        read_checkpoint(source)
    assert read_checkpoint(source, trust_pickle=True)['extra'] is pickle.PickleBuffer


@pytest.fixture
def serve(tmp_path, monkeypatch):
    """A folder behind an address on this machine, and a download folder of its own."""
    from functools import partial
    from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
    from threading import Thread

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'torch_home'))
    server = ThreadingHTTPServer(('127.0.0.1', 0), partial(Quiet, directory=str(tmp_path)))
    Thread(target=server.serve_forever, daemon=True).start()
    yield f'http://127.0.0.1:{server.server_port}'
    server.shutdown()


def test_addresses_are_fetched_and_refuse_pickled_code_too(tmp_path, serve):
    save(tmp_path / 'good.pth', {'state_dict': {'a': torch.ones(1)}})
    assert read_checkpoint(f'{serve}/good.pth')['state_dict']['a'] == 1
    save(tmp_path / 'evil.pth', {'state_dict': Evil()})
    with pytest.raises(ValueError, match='pickled Python objects'):
        read_checkpoint(f'{serve}/evil.pth')


def test_address_without_a_file(serve):
    with pytest.raises(ValueError, match=r'none.pth.*cannot be read: HTTP Error 404'):
        read_checkpoint(f'{serve}/none.pth')


@pytest.mark.parametrize('name', ['TORCH_FORCE_WEIGHTS_ONLY_LOAD', 'TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', None])
def test_torchs_switches_neither_decide_nor_are_lost(tmp_path, monkeypatch, serve, name):
    switches = ('TORCH_FORCE_WEIGHTS_ONLY_LOAD', 'TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD')
    for switch in switches:
        monkeypatch.delenv(switch, raising=False)
    if name:
        monkeypatch.setenv(name, '1')
    before = {switch: os.environ.get(switch) for switch in switches}
    local = save(tmp_path / 'a.pth', {'extra': pickle.PickleBuffer})
    for source in (local, f'{serve}/a.pth'):
        with pytest.raises(ValueError, match='pickled'):
            read_checkpoint(source)
        assert read_checkpoint(source, trust_pickle=True)['extra'] is pickle.PickleBuffer
    assert {switch: os.environ.get(switch) for switch in switches} == before


def test_not_a_path():
    with pytest.raises(TypeError, match='expected a path or an address'):
        read_checkpoint(3)  # type: ignore[arg-type]


def test_missing_file_names_the_place(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'none.pth.*looked at.*Train the teacher first'):
        read_checkpoint(str(tmp_path / 'none.pth'))


@pytest.mark.parametrize('content', [b'', b'no checkpoint', b'PK\x03\x04 truncated'])
def test_unreadable_file(tmp_path, content):
    path = tmp_path / 'a.pth'
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r'a.pth.*(damaged|cannot be read)'):
        read_checkpoint(str(path))


def test_not_a_dictionary(tmp_path):
    with pytest.raises(ValueError, match='holds a list, expected a dictionary'):
        read_checkpoint(save(tmp_path / 'a.pth', [1]))


def test_state_dict_is_unwrapped_and_student_only():
    weights = {'module.a': torch.zeros(1), 'module.distill.losses.x': torch.zeros(1)}
    assert list(state_dict_of({'state_dict': weights})) == ['a']
    assert list(state_dict_of({'a': torch.zeros(1)})) == ['a']


class TestLoadExactly:
    def model(self):
        return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))

    def test_loads(self):
        model, source = self.model(), self.model()
        load_exactly(model, source.state_dict(), 'x.pth')
        assert torch.equal(model[0].weight, source[0].weight)

    def test_missing_extra_and_other_shapes_are_all_told(self):
        state = self.model().state_dict()
        del state['0.bias']
        state['head.weight'] = torch.zeros(1)
        state['0.weight'] = torch.zeros(4, 2)
        with pytest.raises(ValueError) as error:
            load_exactly(self.model(), state, 'x.pth')
        message = str(error.value)
        assert "'x.pth' does not fit Sequential" in message
        assert '1 missing (in the model, not in the file): 0.bias' in message
        assert '1 unexpected (in the file, not in the model): head.weight' in message
        assert '0.weight: (4, 2) in the file, (3, 2) in the model' in message

    def test_differences_can_be_allowed_by_name(self):
        model, state = self.model(), self.model().state_dict()
        kept = model[0].bias.clone()
        del state['0.bias']
        state['head.weight'] = torch.zeros(1)
        load_exactly(model, state, 'x', allow_missing=('0.bias',), allow_unexpected=('head.',))
        assert torch.equal(model[0].bias, kept)
        assert torch.equal(model[0].weight, state['0.weight'])

    def test_nothing_is_loaded_when_something_is_wrong(self):
        model, state = self.model(), self.model().state_dict()
        before = model[0].weight.clone()
        del state['0.bias']
        with pytest.raises(ValueError):
            load_exactly(model, state, 'x')
        assert torch.equal(model[0].weight, before)

    def test_old_files_without_batch_counter(self):
        state = self.model().state_dict()
        del state['1.num_batches_tracked']
        load_exactly(self.model(), state, 'x')


def test_the_list_survives_loads_by_mmengine(tmp_path):
    from mmengine.runner import load_checkpoint

    hub = MessageHub('surviving')
    hub.update_scalar('train/loss', torch.tensor(1.5))
    source = save(tmp_path / 'a.pth', {'state_dict': {}, 'message_hub': hub.state_dict()})
    load_checkpoint(nn.Linear(1, 1), source)
    assert read_checkpoint(source)['message_hub']['log_scalars']['train/loss'].mean() == 1.5
