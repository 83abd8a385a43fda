"""Benchmarks: every claim about speed has a command here; `README.md` shows what they printed."""
