"""Mirror Weights & Biases runs into a local cache; list, query and plot them offline."""

__version__ = "0.1.0"
