"""Graph rewrites. ``pipelines.PIPELINES`` says which run, in which order; a file's docstring says what each does."""
