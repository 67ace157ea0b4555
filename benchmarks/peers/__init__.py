"""One module for each framework: how to build a model and how to run it.

Each has `start(name)`, which returns the versions of its libraries, and
`build(form, case)`, which returns a function that makes a number of calls and
waits until they are finished.
"""
