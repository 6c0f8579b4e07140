"""What each notebook may cost: CPU time with an empty cache, in reference steps (drmlib/lab/reference.py).

`python -m benchmarks notebooks` shows what is stored beside these figures. A budget has room for another processor, on
which the reference step and a notebook do not grow alike.
"""

BUDGETS = {
    "00": 2050,  # start here
    "01": 3350,  # poison a classifier
    "02": 300,  # gallery
    "03": 2900,  # clean label and learned
    "04": 2600,  # poison a regressor
    "05": 500,  # poison a function
    "06": 3050,  # poisoned samples
    "07": 2350,  # confusion training
    "08": 750,  # malicious inputs
    "09": 3150,  # invert a classifier
    "10": 3000,  # mesa
    "11": 3250,  # drmguard
    "12": 1350,  # local error maximisers
    "13": 2300,  # abl
    "14": 3300,  # repair
    "15": 900,  # active learning
}
