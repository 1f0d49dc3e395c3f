"""Facts for the demonstration."""
