"""ONNX Runtime on a CPU: one operator as a model of one node, and norma's norms by such operators.

Tensors are triples (format, shape, bytes), as in _safetensors. Needs the packages onnx, onnxruntime and numpy. One thread,
no graph optimization, so that the operator named is the kernel that runs; an operator that ONNX Runtime has no kernel for
runs as its function body.
"""

import numpy
import onnx
import onnxruntime
from onnx import TensorProto, helper

_TYPES = {
    "fp64": TensorProto.DOUBLE,
    "fp32": TensorProto.FLOAT,
    "fp16": TensorProto.FLOAT16,
    "bf16": TensorProto.BFLOAT16,
}
_STORED = {"fp64": numpy.float64, "fp32": numpy.float32, "fp16": numpy.float16, "bf16": numpy.uint16}
_FORMATS = {"tensor(double)": "fp64", "tensor(float)": "fp32", "tensor(float16)": "fp16", "tensor(bfloat16)": "bf16"}
_sessions = {}


class Refused(Exception):
    """ONNX Runtime does not do this; the message is its own, or a sentence of ours."""


def _session(op, domain, opset, signature, wanted, attributes):
    key = (op, domain, opset, signature, wanted, tuple(sorted(attributes.items())))
    if key not in _sessions:
        names = ["in%d" % i if given else "" for i, given in enumerate(signature)]
        outputs = ["out%d" % i if i in wanted else "" for i in range(max(wanted) + 1)]
        node = helper.make_node(op, names, outputs, domain=domain, **attributes)
        inputs = [
            helper.make_tensor_value_info(name, _TYPES[given[0]], given[1])
            for name, given in zip(names, signature)
            if given
        ]
        graph = helper.make_graph(
            [node], "one_node", inputs, [helper.make_empty_tensor_value_info(o) for o in outputs if o]
        )
        imports = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
        model = helper.make_model(graph, opset_imports=imports, ir_version=10)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.log_severity_level = 4
        _sessions[key] = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
    return _sessions[key]


def _value(tensor):
    number_format, shape, data = tensor
    stored = numpy.frombuffer(data, dtype=_STORED[number_format]).reshape(shape).copy()
    if number_format == "bf16":
        return onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(stored, TensorProto.BFLOAT16)
    return onnxruntime.OrtValue.ortvalue_from_numpy(stored)


def _triple(value):
    number_format, shape = _FORMATS[value.data_type()], tuple(value.shape())
    if number_format != "bf16":
        return number_format, shape, value.numpy().tobytes()
    import ctypes

    count = int(numpy.prod(shape, dtype=numpy.int64))
    return number_format, shape, ctypes.string_at(value.data_ptr(), 2 * count)


def run(op, inputs, opset=17, domain="", wanted=(0,), **attributes):
    """The outputs `wanted` of one node; an input that is None is left out. Refused with ONNX Runtime's words."""
    while inputs and inputs[-1] is None:
        inputs = inputs[:-1]
    for tensor in inputs:
        if tensor is not None and tensor[0] not in _TYPES:
            raise Refused("ONNX Runtime's norms take no %s" % tensor[0])
    signature = tuple(None if t is None else (t[0], tuple(t[1])) for t in inputs)
    try:
        session = _session(op, domain, opset, signature, tuple(wanted), attributes)
        feeds = {"in%d" % i: _value(t) for i, t in enumerate(inputs) if t is not None}
        found = session.run_with_ort_values(["out%d" % i for i in wanted], feeds)
    except Exception as error:  # ONNX Runtime's exceptions have no class in common
        raise Refused("ONNX Runtime refuses %s: %s" % (op, str(error).split("\n")[0])) from None
    return [_triple(value) for value in found]


def norm(name, tensors, attributes, dtype):
    """One of norma's norms by ONNX Runtime's operators, for norma.serve."""
    from .serve import Unsupported

    try:
        if dtype is not None:
            tensors = {k: _cast(t, dtype) for k, t in tensors.items()}
        return _norm(name, tensors, attributes)
    except Refused as refused:
        raise Unsupported(str(refused)) from None


def _cast(tensor, dtype):
    return run("Cast", [tensor], to=_TYPES[dtype])[0] if tensor[0] != dtype else tensor


def _filled(like, count, value):
    return _cast(("fp32", (count,), numpy.full(count, value, dtype=numpy.float32).tobytes()), like[0])


def _norm(name, t, attributes):
    x, eps = t["x"], attributes["eps"]
    if "residual" in t:
        raise Refused("SkipLayerNormalization is not served: a residual")
    if name in ("layernorm", "rmsnorm", "l2norm"):
        if name == "l2norm":
            return {"y": run("LpNormalization", [x], axis=-1, p=2)[0]}
        weight = t.get("weight") or _filled(x, x[1][-1], 1)
        if name == "rmsnorm" and ("bias" in t or "scale" in t):
            raise Refused("SimplifiedLayerNormalization has neither a bias nor a quantized output")
        op = "LayerNormalization" if name == "layernorm" else "SimplifiedLayerNormalization"
        return {"y": run(op, [x, weight, t.get("bias")], epsilon=eps)[0]}
    if name == "modulate":
        scale, shift = (_samples(t.get(k)) for k in ("scale", "shift"))
        rows = _samples(x, like=scale)
        factor = run("Add", [_filled(scale, 1, 1), scale])[0]
        y = run("Mul", [rows, factor])[0]
        y = run("Add", [y, shift])[0] if shift else y
        return {"y": (y[0], x[1], y[2])}
    if name == "gated_residual":
        gate = _samples(t["gate"]) if t["gate"][1] != x[1] else t["gate"]
        shaped = (lambda v: _samples(v, like=gate)) if gate is not t["gate"] else (lambda v: v)
        y = run("Add", [shaped(x), run("Mul", [gate, shaped(t["f"])])[0]])[0]
        return {"y": (y[0], x[1], y[2])}
    return _channel_norm(name, t, attributes, eps)


def _channel_norm(name, t, attributes, eps):
    x = t["x"]
    weight, bias = (t.get(k) or _filled(x, x[1][1], v) for k, v in (("weight", 1), ("bias", 0)))
    if name == "groupnorm":
        groups = int(attributes.get("groups", 32))
        return {"y": run("GroupNormalization", [x, weight, bias], opset=21, epsilon=eps, num_groups=groups)[0]}
    batch = attributes.get("statistics", "batch") == "batch"
    if name == "instancenorm":
        if not batch:
            raise Refused("InstanceNormalization has no running statistics")
        return {"y": run("InstanceNormalization", [x, weight, bias], epsilon=eps)[0]}
    mean, var = (t.get(k) or _filled(x, x[1][1], v) for k, v in (("running_mean", 0), ("running_var", 1)))
    if not batch:
        return {"y": run("BatchNormalization", [x, weight, bias, mean, var], opset=15, epsilon=eps)[0]}
    # ONNX's momentum is the old statistics' share. Its running variance takes the biased variance, norma's the unbiased.
    wanted = (0, 1, 2) if "running_mean" in t else (0,)
    found = run(
        "BatchNormalization",
        [x, weight, bias, mean, var],
        opset=15,
        wanted=wanted,
        epsilon=eps,
        momentum=1 - attributes.get("momentum", 0.1),
        training_mode=1,
    )
    return dict(zip(("y", "running_mean", "running_var"), found))


def _samples(tensor, like=None):
    """[samples, cols] as [samples, 1, cols]; x as [samples, rows, cols] beside such a parameter."""
    if tensor is None or (len(tensor[1]) == 1 and like is None) or (like is not None and len(like[1]) == 1):
        return tensor
    samples = (like or tensor)[1][0]
    cols = tensor[1][-1]
    count = int(numpy.prod(tensor[1], dtype=numpy.int64))
    return tensor[0], (samples, count // (samples * cols), cols), tensor[2]
