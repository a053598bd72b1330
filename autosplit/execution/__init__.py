"""Runs a graph: under any assignment of bit-widths, or as two halves."""
