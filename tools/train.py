#!/usr/bin/env python
"""Train a model: a plain student, a teacher, or a distilled student."""

from mmkd_plugin.launch import run_train

if __name__ == '__main__':
    run_train()
