"""Data: episodes, datasets, and the formats of others."""
