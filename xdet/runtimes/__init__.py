"""Where a model runs: one protocol, one file per back end; ``opening`` maps a format to its runtime."""
