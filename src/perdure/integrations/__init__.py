"""Other systems that are told of versions. The workspace stays the source of truth: what they hold is a copy."""
