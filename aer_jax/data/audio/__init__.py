"""Audio files as waveforms: decoded once, checked for damage, at the rate of the model."""
