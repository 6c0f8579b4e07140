from functools import partial

import pytest
import torch

from drmlib.attacks.issba import issba
from drmlib.models.predict import predict
from drmlib.models.small_cnn import SmallCNN
from drmlib.rng import stream
from tests.problems import colour_images

EPSILON = 0.4


@pytest.fixture(scope="module")
def hidden():
    """Few bits, a coarse budget and a decoder of a quarter of the width: learned in a hundred steps."""
    data = colour_images(100, size=16)
    sizes = {"bits": 4, "epsilon": EPSILON, "width": 4, "steps": 100, "batch_size": 16, "learning_rate": 1e-2}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("drmlib.attacks.issba.SmallCNN", partial(SmallCNN, width=4))
        return data, *issba(data, **sizes, generator=stream(0))


def test_the_decoder_reads_the_string_in_hidden_images_and_not_in_clean_ones(hidden):
    data, trigger, decoder = hidden
    secret = trigger.network.secret.bool()
    read = (predict(decoder, trigger(data.images)) > 0) == secret
    assert read.float().mean() > 0.9
    clean = (predict(decoder, data.images) > 0) == secret
    assert clean.all(1).float().mean() < 0.5


def test_the_residual_is_small_and_of_each_image_its_own(hidden):
    data, trigger, _ = hidden
    residual = trigger(data.images[:20]) - data.images[:20]
    assert residual.abs().max() <= EPSILON + 1e-6 and residual.abs().max() > 0
    assert residual.std(0).mean() > 1e-4


def test_same_seed_same_bits():
    data = colour_images(40, size=16)
    sizes = {"bits": 4, "width": 4, "steps": 2, "batch_size": 8}
    made = [issba(data, **sizes, generator=stream(s))[0](data.images[:3]) for s in (0, 0, 1)]
    assert torch.equal(made[0], made[1]) and not torch.equal(made[0], made[2])
