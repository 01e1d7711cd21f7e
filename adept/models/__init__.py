"""Pretrained models: loading, what is known of their families, and this project's changes to their arithmetic."""
