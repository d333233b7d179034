"""The toy corpus and its formant synthesizer."""
