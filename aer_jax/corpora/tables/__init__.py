"""Tables of every format as rows of named fields, and which column is which."""
