"""A finished model as a web page: a folder of static files that any server hands out, and that works without a network."""
