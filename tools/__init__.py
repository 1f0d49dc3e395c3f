"""What engineers run to keep the repository in order."""
