# What incremental learning is compared with: the new digits alone, and nothing of the old network but the start.
_base_ = '../_base_/old_new_digit_scenes.py'
