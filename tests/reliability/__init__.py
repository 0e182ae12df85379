"""The reliability campaign: `tools/reliability.py` runs it whole, `test_reliability.py` its quick parts."""
