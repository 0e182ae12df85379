#!/usr/bin/env python
"""Evaluate a checkpoint of a plain or distilled student; needs no teacher."""

from mmkd_plugin.launch import run_test

if __name__ == '__main__':
    run_test()
