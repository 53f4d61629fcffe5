"""A finished model as a web page: static files that any server hands out, and that work without a network."""
