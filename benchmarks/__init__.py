"""`python -m benchmarks` compares the speed of models with other libraries."""
