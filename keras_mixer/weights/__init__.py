"""Weights: a file on disk to the variables of a model.

`read -> rename -> assign`, each a step from `{name: array}` to the next in
NumPy, composed by `loading`. A failure in any step leaves the model's weights
as they were.
"""
