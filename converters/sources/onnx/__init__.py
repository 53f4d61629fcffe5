"""ONNX files without a head as sources: read, refused with what to do, and taken over node by node."""
