"""Low-rank adapters, and their exchange with peft."""
