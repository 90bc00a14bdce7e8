"""What the nodes share: parameters, messages, threads, diagnostics."""
