"""Sources of classifiers: torchvision, timm, checkpoints, exported programs."""
