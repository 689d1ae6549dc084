"""Fine-tuning a classifier: photographs and a configuration in, a folder with weights and a card out."""
