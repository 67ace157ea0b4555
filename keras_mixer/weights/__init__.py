"""Loads weights from a file into the variables of a model.

The steps are `read -> rename -> assign`. The data between the steps are
`{name: array}` dictionaries of NumPy arrays. `loading` combines the steps. If a
step fails, the weights of the model are unchanged.
"""
