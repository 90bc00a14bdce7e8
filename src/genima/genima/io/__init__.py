"""Files: reading others' with limits, writing ours atomically."""
