"""What stands in README and docs as code, and how each kind of it is tried; `tests/test_docs.py` is the tests."""
