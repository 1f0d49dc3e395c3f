"""Sequential editing compared: rows of a table, each a method run over the same facts, scored at checkpoints."""
