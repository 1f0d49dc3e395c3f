"""What holds a model near what it was while it learns: one term of the loss per file."""
