"""What all networks of the table of quantization share; no experiment by itself."""

import ml_collections


def make_config(name: str, title: str, weights: str) -> ml_collections.ConfigDict:
    """Returns the experiment of one classifier.

    Args:
      name: of a model in `autosplit.models`.
      title: for tables and plots.
      weights: a package in `autosplit.data.PACKAGES`, or the path of a checkpoint.
    """
    config = ml_collections.ConfigDict()
    config.title = title
    config.seed = 0

    config.model = ml_collections.ConfigDict()
    config.model.name = name
    config.model.weights = weights

    config.images = ml_collections.ConfigDict()
    # The name of a package, or a folder of images. A package of 20 photographs says little
    # about accuracy: give a folder of at least some hundred, and the three numbers below.
    config.images.source = "imagenet_photographs"
    config.images.limit = 20
    config.images.resize_pixels = 256
    config.images.crop_pixels = 224
    # Evenly spaced ones calibrate; the others are scored.
    config.images.calibration = 8
    # Photographs that run together.
    config.chunk = 16
    # LAPQ on the cross-entropy of the labels, as published; otherwise on the divergence of
    # the probabilities from those in float, which says more about each of few photographs.
    config.use_labels = False

    # Of the modes ptq, lapq, weights and plan: fields of autosplit.Recipe.
    config.recipe = ml_collections.ConfigDict()
    config.recipe.w_bits = 4
    config.recipe.a_bits = 8
    config.recipe.first_last_bits = 8
    config.recipe.fused_sums = True
    config.recipe.weight_clipping = "mse"
    config.recipe.activation_clipping = "mse"

    # At which the mode statistics says the clips.
    config.statistics_bits = 4

    config.table = ml_collections.ConfigDict()
    config.table.columns = ((8, 8), (4, 8), (4, 4))
    config.table.methods = (
        "min-max, per tensor",
        "min-max",
        "percentile",
        "kl",
        "mse",
        "aciq",
        "aciq, bits by channel, weights corrected",
        "per tensor, equalized, bias corrected",
        "bias corrected",
        "lapq",
        "adaround",
        "brecq",
    )
    # Of all methods: fields of autosplit.Recipe. The ends at 8 bits and sums that are added
    # before they are quantized are those of the published tables.
    config.table.settings = ml_collections.ConfigDict()
    config.table.settings.first_last_bits = 8
    config.table.settings.fused_sums = True
    config.table.settings.lapq_images = 32
    config.table.settings.lapq_evaluations = 300
    config.table.settings.lapq_iterations = 2
    config.table.settings.rounding_steps = 250
    config.table.settings.rounding_batch = 16
    return config
