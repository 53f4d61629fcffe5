"""Graph rewrites. ``pipelines.PIPELINES`` says which run, in which order; one rewrite per file, its numeric effect on top."""
