"""Every figure that the README and the docs quote, and the peers' figures beside it. Run from the repository's root."""
