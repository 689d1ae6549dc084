"""Localisation benchmark on images with planted evidence."""
