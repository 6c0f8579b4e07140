"""Speed and memory beside a plain reference, in one run, as ratios: python -m benchmarks [name ...]."""
