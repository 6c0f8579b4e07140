"""What a graphics card does with drmlib: `python -m benchmarks.accelerator --device cuda --out FOLDER`, or `make gpu`.

Absolute figures, images a second, with the machine that they were measured on; `python -m benchmarks` has ratios.
"""
