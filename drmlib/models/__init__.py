"""Models: nn.Modules with features(images) and head(features); normalisation is their first layer."""
