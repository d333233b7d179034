"""Any corpus that is described by one table."""
