"""Arrays of numpy (with or without ml_dtypes), torch and whatever numpy can read, to bytes and back.

Neither library is imported unless somebody hands over one of its arrays.
"""

_NAMES = {  # of dtypes, in numpy, ml_dtypes and torch
    "float64": "fp64",
    "float32": "fp32",
    "bfloat16": "bf16",
    "float16": "fp16",
    "float8_e4m3fn": "e4m3fn",
    "float8_e5m2": "e5m2",
    "float8_e4m3fnuz": "e4m3fnuz",
    "float8_e5m2fnuz": "e5m2fnuz",
}
_DTYPES = {number_format: name for name, number_format in _NAMES.items()}


def is_torch(value):
    return type(value).__module__.split(".")[0] == "torch" and hasattr(value, "detach")


def is_tensor(value):
    """Arrays are tensors; numbers and words, numpy's scalars among them, are attributes."""
    if isinstance(value, (str, bytes, int, float)):
        return False
    if hasattr(value, "dtype") and not hasattr(value, "__setitem__") and not hasattr(value, "__len__"):
        return False
    return is_torch(value) or hasattr(value, "__array__") or hasattr(value, "tobytes")


def _format_of(name, tensor):
    dtype = str(getattr(tensor.dtype, "name", tensor.dtype)).replace("torch.", "")
    if dtype not in _NAMES:
        raise ValueError("'%s' is %s; norma takes %s" % (name, dtype, ", ".join(_NAMES)))
    return _NAMES[dtype]


def pack(name, value):
    """An array as (format, shape, bytes)."""
    if is_torch(value):
        import torch

        tensor = value.detach().cpu().contiguous()
        number_format = _format_of(name, tensor)
        codes = tensor.reshape(-1).view(torch.uint8).numpy().tobytes()
        return number_format, tuple(tensor.shape), codes
    if not hasattr(value, "tobytes") or not hasattr(value, "dtype"):
        import numpy

        value = numpy.asarray(value)
    number_format = _format_of(name, value)
    if value.dtype.byteorder == ">":
        value = value.astype(value.dtype.newbyteorder("<"))
    return number_format, tuple(value.shape), value.tobytes()


def unpack(tensor, like):
    """(format, shape, bytes) as an array of the library that `like` is of: torch, else numpy. A format that
    the library does not know comes as unsigned integers, its codes."""
    number_format, shape, data = tensor
    dtype = _DTYPES.get(number_format)
    if is_torch(like):
        import torch

        codes = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        known = getattr(torch, dtype or "", None)
        if known is None:
            return codes.reshape(shape)
        return codes.view(known).reshape(shape)
    import numpy

    try:
        known = numpy.dtype(dtype)
    except TypeError:
        try:
            import ml_dtypes

            known = numpy.dtype(getattr(ml_dtypes, dtype))
        except (ImportError, AttributeError, TypeError):
            known = numpy.dtype("uint16" if number_format == "bf16" else "uint8")
    return numpy.frombuffer(data, dtype=known).reshape(shape).copy()
