"""Pictures: reading and preparing them for a network, drawing on them, naming them."""
