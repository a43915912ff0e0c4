"""The masked decays between the positions of a chunk of the SSD. Conventions as in `loops/norm.py`,
with a row per chunk and group."""

from bytelm.compiled import vectorised
from bytelm.nn.loops.sigmoid import exp


@vectorised
def decayed(part, start, stop, products, total, heads, Q, out):
    """out[h, i, j] = products[i, j] exp(total[h, i] - total[h, j]) for j <= i, else 0."""
    for n in range(start, stop):
        for h in range(heads):
            t = total[(n * heads + h) * Q : (n * heads + h + 1) * Q]
            for i in range(Q):
                row = products[(n * Q + i) * Q : (n * Q + i + 1) * Q]
                at = ((n * heads + h) * Q + i) * Q
                y = out[at : at + Q]
                last = t[i]
                for j in range(i + 1):
                    y[j] = row[j] * exp(last - t[j])
                for j in range(i + 1, Q):
                    y[j] = last - last


@vectorised
def decayed_backward(part, start, stop, grad, products, total, heads, Q, of_products, of_total):
    """The gradients of products (summed over heads) and of total; both arrays start as zeros."""
    for n in range(start, stop):
        for h in range(heads):
            t = total[(n * heads + h) * Q : (n * heads + h + 1) * Q]
            of_t = of_total[(n * heads + h) * Q : (n * heads + h + 1) * Q]
            for i in range(Q):
                row = products[(n * Q + i) * Q : (n * Q + i + 1) * Q]
                of_row = of_products[(n * Q + i) * Q : (n * Q + i + 1) * Q]
                at = ((n * heads + h) * Q + i) * Q
                g = grad[at : at + Q]
                last = t[i]
                along = last - last
                for j in range(i):
                    e = g[j] * exp(last - t[j])
                    of_row[j] += e
                    d = e * row[j]
                    of_t[j] -= d
                    along += d
                of_row[i] += g[i]
                of_t[i] += along
