"""Sources of classifiers: torchvision, timm, transformers, files."""
