"""What a millisecond is worth: sensitivity by named designs, response curves, velocity and investment scenarios.

Everything here is arithmetic on plain values. Nothing claims more than its design and its interval hold.
"""
