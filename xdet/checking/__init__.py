"""The proof that a finished model is its source on every runtime: ``verdict.check`` asks, the other files answer."""
