"""The same in torch operations, for any device; autograd can see through them."""
