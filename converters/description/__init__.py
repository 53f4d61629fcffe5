"""Where a detector's description comes from: options, zoo yaml, sidecar, and what the model file itself tells."""
