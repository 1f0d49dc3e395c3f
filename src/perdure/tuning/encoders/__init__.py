"""Encoders learn to tell a labelled set's classes apart: labelled images or texts → delta, and a head beside it."""
