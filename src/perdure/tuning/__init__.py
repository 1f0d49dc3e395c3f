"""Tasks to deltas: one trainer, its regularizers, averaging, a pool of adapters, replay."""
