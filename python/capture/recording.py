"""What all capture scripts share: a recording of calls with their tensors, its provenance, and the file it becomes.

A file holds tensors and, as metadata `calls`, one entry for each call, in JSON:

    {"layernorm.D100.affine": {"norm": "layernorm", "operator": "torch.nn.functional.layer_norm",
                               "inputs": {"x": "layernorm.D100.x", ...}, "outputs": {"y": "layernorm.D100.y.affine"},
                               "attributes": {"eps": 1e-05}, "layout": "channels_last"}}

so that calls may share tensors and a reader needs no rule for names. Attributes are what the call was given, as binary64.
Metadata `refused` names the calls that the code turned down, with its own words.
"""
import hashlib
import importlib.metadata
import json
import os
import platform

import torch

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
NAMES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16", torch.uint8: "U8",
         torch.float64: "F64", torch.float8_e4m3fn: "F8_E4M3", torch.float8_e5m2: "F8_E5M2"}


def blob(file):
    """Git's name of a file's content; `git log --find-object=BLOB` tells the commit."""
    with open(file, "rb") as f:
        content = f.read()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def provenance(*packages, **more):
    """Everything the bits may depend on, as one line of JSON."""
    facts = {"torch": torch.__version__, "torch_git": torch.version.git_version,
             "cpu_capability": torch.backends.cpu.get_cpu_capability(), "threads": torch.get_num_threads(),
             "machine": platform.machine(), "python": platform.python_version()}
    facts.update({p: importlib.metadata.version(p) for p in packages})
    facts.update(more)
    return json.dumps(facts, sort_keys=True)


def save(path, tensors, metadata):
    """Safetensors with names and metadata in sorted order, so that the same bits give the same file."""
    header, body, end = {"__metadata__": dict(sorted(metadata.items()))}, [], 0
    for name, t in sorted(tensors.items(), key=lambda item: (-item[1].element_size(), item[0])):
        data = t.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        header[name] = {"dtype": NAMES[t.dtype], "shape": list(t.shape), "data_offsets": [end, end + len(data)]}
        body.append(data)
        end += len(data)
    head = json.dumps(header, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)
    with open(path, "wb") as f:
        f.write(len(head).to_bytes(8, "little") + head + b"".join(body))
    print(path, len(tensors), "tensors", os.path.getsize(path), "bytes")


class Recording:
    """Calls and their tensors. A tensor is kept once, under the name it was first given."""

    def __init__(self, script, seed, *packages):
        self.script, self.seed, self.packages = script, seed, packages
        self.tensors, self.calls, self.names, self.refused = {}, {}, {}, {}

    def keep(self, name, tensor):
        """Keeps a copy under `name`; the tensor itself goes into calls. Returns it."""
        assert name not in self.tensors, name
        self.tensors[name] = tensor.detach().clone()
        self.names[id(tensor)] = (name, tensor)  # holds the tensor, so that its id stays its own
        return tensor

    def name_of(self, value):
        """The name of a kept tensor, or the name itself."""
        return value if isinstance(value, str) else self.names[id(value)][0]

    def call(self, name, norm, operator, inputs, outputs, attributes=None, **more):
        """`inputs`: kept tensors or their names. `outputs`: tensors, kept here as NAME.OUTPUT."""
        assert name not in self.calls, name
        written = {}
        for output, tensor in outputs.items():
            written[output] = f"{name}.{output}"
            self.keep(written[output], tensor)
        self.calls[name] = {"norm": norm, "operator": operator, "outputs": written,
                            "inputs": {k: self.name_of(v) for k, v in inputs.items() if v is not None},
                            "attributes": attributes or {}, **more}

    def refuse(self, name, operator, error):
        """A call that the code itself turns down; its words are kept."""
        self.refused[name] = f"{operator}: {str(error).splitlines()[0]}"

    def save(self, path, **more):
        folder = os.path.dirname(os.path.abspath(__file__))
        used = {os.path.basename(f): blob(f) for f in (self.script, os.path.join(folder, "recording.py"))}
        metadata = {"calls": json.dumps(self.calls, sort_keys=True, separators=(",", ":")),
                    "provenance": provenance(*self.packages, seed=self.seed, scripts=used, **more)}
        if self.refused:
            metadata["refused"] = json.dumps(self.refused, sort_keys=True)
        save(path, self.tensors, metadata)
