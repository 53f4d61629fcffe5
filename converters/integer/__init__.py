"""The network in exact integers, in numpy alone: what golden vectors and teacher forcing are computed with.

No runtime is asked, so the numbers do not depend on what is installed. Sums of products are float64 matrix products of
integers: far below 2^53, hence exact in any order. One file per family of operators.
"""
