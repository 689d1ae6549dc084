"""Fine-tuning of a classifier: images in, a folder with weights and card out."""
