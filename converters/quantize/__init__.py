"""A float network and the ranges of its values -> canonical QDQ int8, the same form that TFLite files get."""
