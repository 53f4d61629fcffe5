"""TFLite files: a verifying reader into frozen records, and the translation of operators to ONNX."""
