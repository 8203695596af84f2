"""Decide first: what is to be done, from what is listed and what is cached. Pure."""
