"""The ways to compute a call. `table.py` lists them in order of preference."""
