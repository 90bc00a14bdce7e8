"""Episodes, datasets, and formats of other projects."""
