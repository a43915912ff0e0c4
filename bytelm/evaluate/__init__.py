"""Measuring models: bits per byte beside general compressors, and pictures of chunk boundaries."""
