"""Tasks of RLBench, where RLBench is installed."""
