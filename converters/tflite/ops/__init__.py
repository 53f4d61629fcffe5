"""Translations of TFLite operators, one file per family; ``converters.tflite.handlers`` is the table."""
