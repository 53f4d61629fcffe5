"""How results are written: text for a terminal, HTML, and files that appear whole or not at all."""
