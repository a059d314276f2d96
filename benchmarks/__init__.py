"""Measurements of gradtx: speed, size, and what the theory of optimization promises."""
