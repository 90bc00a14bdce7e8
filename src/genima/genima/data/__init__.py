"""Episodes, datasets, and other projects' formats."""
