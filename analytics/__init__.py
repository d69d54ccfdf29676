"""Turns stored stamps into answers: stitching, counts, percentiles. Pure functions, queries beside them."""
