"""Scripts behind `docs/results/`; nothing imports them."""
