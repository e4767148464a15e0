"""Writes and reads safetensors files with the standard library alone.

Layout (https://github.com/huggingface/safetensors, "Format"): 8 bytes, little-endian, the header's length; the
header, JSON; then the data. A tensor here is a triple (format, shape, bytes) with norma's name of the format.
Formats that safetensors lacks travel as U8 with metadata "format.NAME".
"""

import json
import struct

DTYPES = {
    "fp64": "F64",
    "fp32": "F32",
    "bf16": "BF16",
    "fp16": "F16",
    "e4m3fn": "F8_E4M3",
    "e5m2": "F8_E5M2",
}
_FORMATS = {dtype: name for name, dtype in DTYPES.items()}
_BYTES = {"F64": 8, "F32": 4, "BF16": 2, "F16": 2, "F8_E4M3": 1, "F8_E5M2": 1, "U8": 1, "I8": 1, "BOOL": 1,
          "I16": 2, "U16": 2, "I32": 4, "U32": 4, "I64": 8, "U64": 8}


def write(path, tensors):
    """Writes {name: (format, shape, bytes)}."""
    header = {}
    metadata = {}
    at = 0
    # Widest first keeps every tensor aligned to its own size.
    order = sorted(tensors, key=lambda name: (-_BYTES[DTYPES.get(tensors[name][0], "U8")], name))
    for name in order:
        number_format, shape, data = tensors[name]
        if number_format not in DTYPES:
            metadata["format." + name] = number_format
        header[name] = {
            "dtype": DTYPES.get(number_format, "U8"),
            "shape": list(shape),
            "data_offsets": [at, at + len(data)],
        }
        at += len(data)
    if metadata:
        header["__metadata__"] = metadata
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)))
        file.write(text)
        for name in order:
            file.write(tensors[name][2])


def read(path):
    """Reads {name: (format, shape, bytes)}; ValueError for a file that is not whole."""
    with open(path, "rb") as file:
        content = file.read()
    if len(content) < 8:
        raise ValueError("%s is no safetensors file: it has %d bytes" % (path, len(content)))
    (length,) = struct.unpack("<Q", content[:8])
    if 8 + length > len(content):
        raise ValueError("%s is cut off within its header" % path)
    header = json.loads(content[8 : 8 + length])
    metadata = header.pop("__metadata__", {})
    data = content[8 + length :]
    tensors = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        elements = 1
        for side in entry["shape"]:
            elements *= side
        if end > len(data) or end - begin != elements * _BYTES[entry["dtype"]]:
            raise ValueError("%s: tensor '%s' is cut off or has another size than its shape" % (path, name))
        number_format = metadata.get("format." + name) or _FORMATS.get(entry["dtype"], entry["dtype"])
        tensors[name] = (number_format, tuple(entry["shape"]), data[begin:end])
    return tensors
