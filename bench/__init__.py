"""The measuring; README.md has the layout, and tests/test_layers.py who may import whom."""
