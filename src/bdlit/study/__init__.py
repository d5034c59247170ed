"""Studies: many models, many suspects, each cell computed once."""
