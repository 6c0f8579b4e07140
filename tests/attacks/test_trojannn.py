import torch

from drmlib.attacks.badnets import place
from drmlib.attacks.trojannn import trojannn
from drmlib.models.predict import features
from drmlib.models.small_cnn import SmallCNN
from drmlib.rng import stream
from tests.problems import Flat, noise_images


def test_on_a_linear_feature_the_best_patch_is_known():
    """Features are the pixels: those connected best that lie under the patch are driven to 1, the largest there is."""
    model, images = Flat(3 * 32 * 32, 2, generator=stream(0)), noise_images(20, size=32)
    with torch.no_grad():
        model.head.weight.zero_()
        model.head.weight[0, 21 * 32 + 21] = 5  # channel 0, the patch's upper left pixel
    found = trojannn(model, images, neurons=1, steps=60, batch_size=8, generator=stream(1))
    assert found.mask.nonzero().amin(0).tolist() == [21, 21] and found.mask.nonzero().amax(0).tolist() == [28, 28]
    assert found.pattern[0, 21, 21] > 0.99


def test_it_drives_the_neurons_connected_best_further_than_a_random_patch():
    model, images = SmallCNN(4, width=8, generator=stream(0)), noise_images(40, size=32)
    found = trojannn(model, images, neurons=2, steps=60, batch_size=16, generator=stream(1))
    best = model.head.weight.detach().abs().sum(0).topk(2).indices
    random = place(torch.rand(3, 8, 8, generator=stream(2)), top=21, left=21, height=32, width=32)
    driven, idle = (features(model, trigger(images))[:, best].mean() for trigger in (found, random))
    assert driven > idle
    assert all(p.requires_grad for p in model.parameters())
