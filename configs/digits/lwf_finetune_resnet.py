# What LwF is compared with from below: the new digits alone, and nothing of the old network but the start.
_base_ = '../_base_/old_new_digits.py'
