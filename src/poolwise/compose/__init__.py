"""Poolings made of public calls: what needs two geometries, or positions that are drawn."""
