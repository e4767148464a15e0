"""The polynomial of function_loops.inc's tail_value: (t + 5) m(t) over z = (t - 5)/(t + 5), 0 <= t <= 38.

Interpolates at Chebyshev nodes with mpmath and prints the coefficients, highest first, as binary64 numbers. Nothing
rests on this script: tests/reference/tail_test.cpp proves how far the polynomial is from m.
"""
from mpmath import mp, mpf, cos, erfc, exp, lu_solve, matrix, pi, sqrt

DEGREE = 23
CENTRE = 5
END = 38

mp.prec = 400
top = mpf(END - CENTRE) / (END + CENTRE)


def target(z):
    t = CENTRE * (1 + z) / (1 - z)
    return (t + CENTRE) * exp(t * t / 2) * erfc(t / sqrt(mpf(2))) / 2


nodes = [(top - 1) / 2 + (top + 1) / 2 * cos(pi * (k + mpf(1) / 2) / (DEGREE + 1)) for k in range(DEGREE + 1)]
rows = matrix([[z**n for n in range(DEGREE + 1)] for z in nodes])
for c in reversed(list(lu_solve(rows, matrix([target(z) for z in nodes])))):
    print(float(c).hex())
