"""Linear problems: least squares, ordered subsets, maximum likelihood, penalties with a proximal map."""
