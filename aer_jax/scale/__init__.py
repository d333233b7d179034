"""Sizes that do not fit on a desk: shapes of the published model, and what moving them costs."""
