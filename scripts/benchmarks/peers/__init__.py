"""The contestants of ``scripts/bench compare``: one program for each, in its own environment."""
