"""What lectures on optimization claim, measured: one claim a file.

`python -m benchmarks.theory.rates` measures one, and writes its numbers and its picture to `benchmarks/results/theory/`.
"""
