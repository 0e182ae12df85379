# LwF's lower bound: the new digits without a word of the old ones.
_base_ = '../_base_/pairs/old_new_digits.py'
