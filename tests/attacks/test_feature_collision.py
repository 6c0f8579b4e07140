import torch

from drmlib.attacks.feature_collision import FeatureCollision
from drmlib.attacks.per_image import choice
from drmlib.rng import stream
from tests.problems import SIZE, Flat, noise_images

MODEL = Flat(3 * SIZE * SIZE, 4, generator=stream(0, "flat"))  # its features are the pixels
BASES, INSTANCES = noise_images(6), noise_images(3, low=0.4, high=1.0, seed=1)


def test_where_features_are_pixels_the_solution_is_known():
    """min |x - t|^2 + beta |x - b|^2. Forward-backward splitting with gradient 2 (x - t) and the proximal step of
    beta |x - b|^2 / 2 rests where 2 (x - t) + beta (x - b) = 0: x = (2 t + beta b) / (2 + beta)."""
    made = FeatureCollision(MODEL, INSTANCES, opacity=0.0, beta=1.0, step=0.1, steps=200)(BASES)
    instance = INSTANCES[choice(BASES, 3, seed=0)]
    torch.testing.assert_close(made, (2 * instance + BASES) / 3, atol=1e-4, rtol=0)


def test_with_no_steps_it_is_the_watermark_and_the_identity_with_none():
    instance = INSTANCES[choice(BASES, 3, seed=0)]
    made = FeatureCollision(MODEL, INSTANCES, opacity=0.3, steps=0)(BASES)
    torch.testing.assert_close(made, 0.7 * BASES + 0.3 * instance)
    assert torch.equal(FeatureCollision(MODEL, INSTANCES, opacity=0.0, steps=0)(BASES), BASES)


def test_each_image_keeps_its_instance_in_any_batch():
    trigger = FeatureCollision(MODEL, INSTANCES, steps=3)
    assert torch.equal(trigger(BASES)[2:3], trigger(BASES[2:3]))


def test_features_come_closer_and_the_picture_stays_near():
    trigger = FeatureCollision(MODEL, INSTANCES, steps=30)
    made, instance = trigger(BASES), INSTANCES[choice(BASES, 3, seed=0)]
    start = torch.lerp(BASES, instance, 0.3)
    assert ((made - instance).flatten(1).norm(dim=1) < (start - instance).flatten(1).norm(dim=1)).all()
    nearer = FeatureCollision(MODEL, INSTANCES, beta=20.0, steps=30)(BASES)
    assert (nearer - start).norm() < (made - start).norm()
