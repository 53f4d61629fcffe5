"""Translations of TFLite operators, one file per family; ``converters.sources.tflite.operators`` is the table."""
