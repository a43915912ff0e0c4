"""One position per row, in place: the decoding form of the layers, for a state nobody else holds.

Every layer has three forms that compute the same: `forward` over whole rows, `extend` from one
immutable state to the next, and the classes here, which are made from an immutable state, feed one
position at a time to buffers of their own, and give an immutable state back when somebody asks.
"""
