"""A finished ONNX file as a file: its bytes, its wire format, its graph, and copies with one thing changed."""
