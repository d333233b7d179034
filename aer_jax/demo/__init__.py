"""The demo and its tiny checkpoint."""
