"""Digests of ml_dtypes' (and numpy's) conversions of every fp32 bit pattern, as a witness from outside.

For each format and i = 0 .. 2^32-1, in order: code(i) = the bits of fp32 pattern i converted to the format,
every NaN result replaced by one fixed pattern (NANS below; sign and payload are not judged). Then

    digest = sum over i of (code(i) + 1) * (2 i + 1)   modulo 2^64,

for all patterns (total) and for each block of 2^24 patterns (256 blocks; total = their sum modulo 2^64).
Equal digests are no proof of equal codes, but a single differing code always changes its block's digest:
2 i + 1 is odd, so (difference) * (2 i + 1) is not 0 modulo 2^64.

    python ml_dtypes_digest.py tests/golden/ml_dtypes_digests.json [FORMAT ...]

Takes some minutes on one core.
"""
import json
import sys

import ml_dtypes
import numpy as np

BLOCK = 1 << 24
PIECE = 1 << 16  # small enough for the cache
NANS = {
    "bf16": (ml_dtypes.bfloat16, np.uint16, 0x7FC0),
    "fp16": (np.float16, np.uint16, 0x7E00),
    "e4m3fn": (ml_dtypes.float8_e4m3fn, np.uint8, 0x7F),
    "e5m2": (ml_dtypes.float8_e5m2, np.uint8, 0x7E),
    "e4m3fnuz": (ml_dtypes.float8_e4m3fnuz, np.uint8, 0x80),
    "e5m2fnuz": (ml_dtypes.float8_e5m2fnuz, np.uint8, 0x80),
}


def canonical_codes(dtype, codes, nan):
    """For each code its own value, and for the code of a NaN the fixed pattern: to be indexed by code."""
    every = np.arange(1 << (8 * codes().itemsize)).astype(codes)
    return np.where(np.isnan(every.view(dtype)), codes(nan), every).astype(np.uint64)


def block_digest(block, dtype, codes, canonical):
    total = 0
    for start in range(block * BLOCK, (block + 1) * BLOCK, PIECE):
        i = np.arange(start, start + PIECE, dtype=np.uint64)
        code = canonical[i.astype(np.uint32).view(np.float32).astype(dtype).view(codes)]
        total += int(np.sum((code + np.uint64(1)) * (np.uint64(2) * i + np.uint64(1)), dtype=np.uint64))
    return total % (1 << 64)


def main(path, names):
    np.seterr(all="ignore")
    out = {"version": f"ml_dtypes {ml_dtypes.__version__}, numpy {np.__version__}",
           "digest": "sum over i of (code(i) + 1) * (2 i + 1) mod 2^64, i the fp32 pattern, ascending; "
                     "block b holds i in [b 2^24, (b+1) 2^24); NaN results are replaced by nan",
           "formats": {}}
    for name in names or NANS:
        dtype, codes, nan = NANS[name]
        canonical = canonical_codes(dtype, codes, nan)
        blocks = [block_digest(b, dtype, codes, canonical) for b in range((1 << 32) // BLOCK)]
        total = sum(blocks) % (1 << 64)
        out["formats"][name] = {"nan": f"{nan:#x}", "total": f"{total:016x}", "blocks": [f"{b:016x}" for b in blocks]}
        print(name, f"{total:016x}", flush=True)
    with open(path, "w") as f:
        json.dump(out, f, indent=0)
        f.write("\n")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
