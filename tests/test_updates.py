"""Hearing of optimizers' steps."""

import copy
import gc

import torch

from mmkd_plugin.updates import UpdateListener


class Told(UpdateListener):
    def __init__(self, name, log):
        self.name, self.log = name, log

    def before_update(self, optimizer):
        self.log.append(('before', self.name, float(optimizer.param_groups[0]['params'][0])))

    def after_update(self, optimizer):
        self.log.append(('after', self.name, float(optimizer.param_groups[0]['params'][0])))


def step():
    parameter = torch.nn.Parameter(torch.tensor(1.0))
    parameter.grad = torch.tensor(1.0)
    torch.optim.SGD([parameter], lr=1.0).step()


def test_listeners_are_told_in_order_once_each():
    log: list[tuple[str, str, float]] = []
    first, second = Told('first', log), Told('second', log)
    for listener in (first, second, first):
        listener.listen()
    step()
    assert log == [('before', 'first', 1), ('before', 'second', 1), ('after', 'first', 0), ('after', 'second', 0)]
    first.be_deaf()
    second.be_deaf()
    second.be_deaf()
    step()
    assert len(log) == 4


def test_nobody_is_kept_alive_and_copies_have_heard_nothing():
    log: list[tuple[str, str, float]] = []
    listener = Told('gone', log)
    listener.listen()
    twin = copy.copy(listener)
    twin.name = 'twin'
    del listener
    gc.collect()
    step()
    assert log == []
    twin.listen()
    step()
    assert [name for _, name, _ in log] == ['twin', 'twin']
    twin.be_deaf()
