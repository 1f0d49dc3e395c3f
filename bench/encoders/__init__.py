"""Encoders that learn one set: which methods, on which sets, what is recognised of the others, what the table says."""
