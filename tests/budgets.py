"""What each notebook may cost: CPU time with an empty cache, in reference steps (drmlib/lab/reference.py).

`python -m benchmarks notebooks` shows what is stored beside these figures. A budget is half as much
again as was stored: on another processor, or beside other work, the reference step and a notebook do not grow alike.
"""

BUDGETS = {
    "00": 2400,  # start here
    "01": 6100,  # poison a classifier
    "02": 400,  # gallery
    "03": 6100,  # clean label and learned
    "04": 6400,  # poison a regressor
    "05": 1000,  # poison a function
    "06": 9300,  # poisoned samples
    "07": 5400,  # confusion training
    "08": 1700,  # malicious inputs
    "09": 7700,  # invert a classifier
    "10": 6000,  # mesa
    "11": 6000,  # drmguard
    "12": 3700,  # local error maximisers
    "13": 4900,  # abl
    "14": 7700,  # repair
    "15": 2100,  # active learning
}
