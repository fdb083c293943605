"""Logs replayed event by event after a training: what updating is worth, and retraining."""
