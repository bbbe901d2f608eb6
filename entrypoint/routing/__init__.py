"""Routes and policy rules: what should be, what is, and the difference."""
