"""Streams of tasks: what they are, how each method learns them, what is asked, what the table says."""
