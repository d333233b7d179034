"""`aer-jax prepare`: a corpus becomes a dataset directory."""
