"""Measures the speed of this library beside other libraries.

`python -m benchmarks` compares models, `python -m benchmarks.scaling` measures
cost against size. docs/speed.md describes both. A command imports no framework:
each framework has a process of its own (`worker`), and `processes` talks to it.
"""
