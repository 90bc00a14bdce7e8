"""RLBench's tasks, where RLBench is installed."""
