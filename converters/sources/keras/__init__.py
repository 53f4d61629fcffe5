"""Keras files -> a float network: read and scanned as data first, then loaded, exported by tf2onnx and taken over."""
