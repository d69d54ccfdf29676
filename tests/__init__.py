"""The tests, as a package of its own: some distributions install another one called `tests`, which would come first."""
