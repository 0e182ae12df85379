import os
import pickle
import re
import sys
import types

import numpy as np
import pytest
import torch
from mmengine.logging import MessageHub
from mmengine.model import ExponentialMovingAverage
from safetensors.torch import save_file
from torch import nn

from mmkd_plugin.files.checkpoint import read_checkpoint, state_dict_of


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
    Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f'http://127.0.0.1:{server.server_port}'
    server.shutdown()
    server.server_close()


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


def test_whole_pickled_model_is_no_dictionary(tmp_path):
    with pytest.raises(ValueError, match=r'holds a Linear \(a whole model; save its state_dict\(\) instead\)'):
        read_checkpoint(save(tmp_path / 'a.pth', nn.Linear(1, 1)), trust_pickle=True)


def test_pickled_classes_that_are_not_here(tmp_path, monkeypatch):
    module = types.ModuleType('elsewhere')
    vars(module)['Gone'] = type('Gone', (), {'__module__': 'elsewhere'})
    monkeypatch.setitem(sys.modules, 'elsewhere', module)
    source = save(tmp_path / 'a.pth', {'x': vars(module)['Gone']()})
    monkeypatch.undo()
    with pytest.raises(ValueError, match=r"needs Python code that is not here: No module named 'elsewhere'"):
        read_checkpoint(source, trust_pickle=True)


@pytest.mark.parametrize('legacy', [False, True])
@pytest.mark.parametrize('trust', [False, True])
def test_every_truncation_is_an_error_that_asks_for_a_whole_file(tmp_path, legacy, trust):
    path = tmp_path / 'a.pth'
    torch.save({'a': torch.ones(40)}, path, _use_new_zipfile_serialization=not legacy)
    data = path.read_bytes()
    for length in (0, 1, 10, 100, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:length])
        with pytest.raises(ValueError, match=r"checkpoint '.*a.pth'.*(empty|complete|damaged|begins with)"):
            read_checkpoint(str(path), trust_pickle=trust)


class TestSafetensors:
    def test_is_read_whatever_its_name(self, tmp_path):
        weights = {'a.weight': torch.arange(6.0).view(2, 3), 'b': torch.tensor([1, 2])}
        for name in ('model.safetensors', 'model.pth'):
            save_file(weights, tmp_path / name)
            state = state_dict_of(read_checkpoint(tmp_path / name))
            assert all(torch.equal(state[key], value) for key, value in weights.items())

    def test_that_is_cut(self, tmp_path):
        save_file({'a': torch.ones(40)}, tmp_path / 'a.safetensors')
        data = (tmp_path / 'a.safetensors').read_bytes()
        for length in (20, len(data) - 1):
            (tmp_path / 'a.safetensors').write_bytes(data[:length])
            with pytest.raises(ValueError, match='is a damaged safetensors file'):
                read_checkpoint(tmp_path / 'a.safetensors')


def test_foreign_file_is_named_and_no_trust_is_advised(tmp_path):
    path = tmp_path / 'teacher.pth'
    path.write_text('<!DOCTYPE html><html><head><title>Sign in</title></head></html>')
    for trust in (False, True):
        with pytest.raises(ValueError, match=r"checkpoint '.*teacher.pth' is a web page") as error:
            read_checkpoint(str(path), trust_pickle=trust)
        assert 'trust_pickle' not in str(error.value)


def test_plain_pickle_is_not_run_even_if_trusted(tmp_path):
    (tmp_path / 'a.pkl').write_bytes(pickle.dumps({'x': Evil()}))
    with pytest.raises(ValueError, match='is a plain Python pickle'):
        read_checkpoint(tmp_path / 'a.pkl', trust_pickle=True)


def test_foreign_file_at_an_address_names_what_to_delete(tmp_path, serve):
    (tmp_path / 'page.pth').write_text('<html></html>')
    with pytest.raises(ValueError, match=r'is a web page') as error:
        read_checkpoint(f'{serve}/page.pth')
    kept = re.search(r'kept as (\S+);', str(error.value))
    assert kept is not None
    os.remove(kept[1])
    save(tmp_path / 'page.pth', {'a': torch.ones(1)})
    assert read_checkpoint(f'{serve}/page.pth')['a'] == 1


def test_same_file_name_at_two_addresses_is_two_files(tmp_path, serve):
    for number in (1, 2):
        (tmp_path / str(number)).mkdir()
        save(tmp_path / str(number) / 'epoch_100.pth', {'a': torch.tensor(number)})
    assert [read_checkpoint(f'{serve}/{n}/epoch_100.pth')['a'].item() for n in (1, 2)] == [1, 2]


@pytest.mark.parametrize('address', ['torchvision://resnet999', 'htp://x/y.pth'])
def test_address_that_names_nothing(address):
    with pytest.raises(ValueError, match=f"checkpoint '{address}' cannot be read"):
        read_checkpoint(address)


def test_not_a_dictionary(tmp_path):
    with pytest.raises(ValueError, match='holds a list, expected a dictionary'):
        read_checkpoint(save(tmp_path / 'a.pth', [1]))


class TestStateDictOf:
    def test_is_unwrapped_and_student_only(self):
        weights = {'module.a': torch.zeros(1), 'module.distill.losses.x': torch.zeros(1)}
        assert list(state_dict_of({'state_dict': weights})) == ['a']
        assert list(state_dict_of({'a': torch.zeros(1)})) == ['a']

    def test_wrapped_student_beside_plain_distill_keys(self):
        assert list(state_dict_of({'module.a': torch.zeros(1), 'distill.x': torch.zeros(1)})) == ['a']

    def test_a_part_called_module_stays(self):
        assert list(state_dict_of({'module.a': torch.zeros(1), 'b': torch.zeros(1)})) == ['module.a', 'b']

    @pytest.mark.parametrize('averaged', [ExponentialMovingAverage, torch.optim.swa_utils.AveragedModel])
    def test_averaged_copies_are_read_by_key(self, averaged):
        model = nn.Linear(2, 3)
        checkpoint = {'ema_state_dict': averaged(model).state_dict(), 'optimizer': {'state': {0: {'m': torch.ones(1)}}}}
        with pytest.raises(ValueError, match=r"Say where the weights are: state_key='ema_state_dict'$") as error:
            state_dict_of(checkpoint, 'x.pth')
        assert "'x.pth' has no state_dict; it holds ema_state_dict (a dictionary of 3 Tensor)" in str(error.value)
        state = state_dict_of(checkpoint, 'x.pth', 'ema_state_dict')
        assert set(state) == {'weight', 'bias'}
        assert torch.equal(state['weight'], model.weight)

    @pytest.mark.parametrize('key', ['model', 'net', 'weights', 'state_dict_ema', 'ema.module'])
    def test_other_projects_keys(self, key):
        inner = {'a': torch.ones(1)}
        checkpoint = {'ema': {'module': inner}, 'epoch': 3} if '.' in key else {key: inner, 'epoch': 3}
        with pytest.raises(ValueError, match=rf"epoch \(int\).*state_key='{key}'"):
            state_dict_of(checkpoint)
        assert state_dict_of(checkpoint, state_key=key) == inner

    def test_tensors_beside_the_weights_do_not_hide_them(self):
        with pytest.raises(ValueError, match="state_key='model'"):
            state_dict_of({'model': {'a': torch.ones(1)}, 'loss': torch.tensor(0.5)})

    def test_key_that_is_not_there(self):
        checkpoint = {'state_dict': {'a': torch.ones(1)}, 'epoch': 3}
        for key in ('ema_state_dict', 'epoch', 'epoch.x'):
            with pytest.raises(ValueError, match=rf"no weights under '{key}'.*holds state_dict .*'state_dict'"):
                state_dict_of(checkpoint, state_key=key)

    @pytest.mark.parametrize('weights', [None, [], {}, 'x', nn.Linear(1, 1), {0: torch.ones(1)}, {'a': [1.0]}])
    def test_state_dict_of_another_kind(self, weights):
        with pytest.raises(ValueError, match=r"'x.pth' has no weights under 'state_dict'.* It holds state_dict \("):
            state_dict_of({'state_dict': weights}, 'x.pth')

    def test_nothing_at_all(self):
        with pytest.raises(ValueError, match=r'has no weights \(a dictionary.*holds nothing'):
            state_dict_of({})
        with pytest.raises(ValueError, match=r'holds w \(ndarray\)'):
            state_dict_of({'w': np.ones(3)})


def test_the_list_survives_loads_by_mmengine(tmp_path):
    from mmengine.runner import load_checkpoint

    hub = MessageHub('surviving')
    hub.update_scalar('train/loss', torch.tensor(1.5))
    source = save(tmp_path / 'a.pth', {'state_dict': {}, 'message_hub': hub.state_dict()})
    load_checkpoint(nn.Linear(1, 1), source)
    assert read_checkpoint(source)['message_hub']['log_scalars']['train/loss'].mean() == 1.5
