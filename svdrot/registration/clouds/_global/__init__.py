"""What `register` does beyond one rigid pose of one pair: sizes that are not known, and many pairs."""
