"""Plans: a training step compiled and costed for devices that are absent."""
