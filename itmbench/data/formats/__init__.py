"""The genuine on-disk layouts of the field's datasets, one reader each."""
