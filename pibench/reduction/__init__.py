"""How ReLUs go: the reduction methods of the papers."""
