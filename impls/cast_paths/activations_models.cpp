// Activations that models write in Python: torch rounds every operation to the tensor's format.
#include "impls/cast_paths/activation_steps.hpp"
#include "impls/cast_paths/catalog.hpp"

namespace norma::cast_paths {

namespace {

// A Python number beside a tensor: in fp32 inside the operation.
Operand number(Builder& b, const std::string& name, double value) {
  return b.cast(name + "_f32", kFp32, b.constant(name, value));
}
Operand eager(Builder& b, const std::string& name, Op op, Operand a, Operand c) {
  return b.eager(name, op, b.x_format(), {a, c});
}
/// A library's function on the tensor: in fp32, then to its format.
Operand in_t(Builder& b, const std::string& name, Operand fp32) { return b.cast(name, b.x_format(), fp32); }

Operand eager_sigmoid(Builder& b, Operand x) {
  return in_t(b, "sigmoid_T", b.map("sigmoid", Op::reciprocal, kFp32, {one_plus_exp_of_minus(b, x)}));
}
Operand eager_tanh(Builder& b, Operand z) { return in_t(b, "tanh_T", library_function(b, "tanh", Op::tanh, z)); }

// x * sigmoid(x)
Program build_swish(const Binding& binding) {
  require_float_or_half(binding, "swish");
  Builder b("silu", binding);
  const Operand x = b.input("x");
  b.output("y", eager(b, "y", Op::mul, x, eager_sigmoid(b, x)));
  return b.finish();
}

// F.silu(x.float()).to(x.dtype)
Program build_fp32_silu(const Binding& binding) {
  require_float_or_half(binding, "FP32SiLU");
  Builder b("silu", binding);
  const Operand x = b.input("x");
  b.output("y", b.cast("y", b.x_format(), b.div("silu", kFp32, x, one_plus_exp_of_minus(b, x))));
  return b.finish();
}

// x * sigmoid(1.702 * x)
Program build_quick_gelu(const Binding& binding) {
  require_float_or_half(binding, "quick_gelu");
  Builder b("gelu", binding);
  const Operand x = b.input("x");
  const Operand z = eager(b, "z", Op::mul, number(b, "c", 1.702), x);
  b.output("y", eager(b, "y", Op::mul, x, eager_sigmoid(b, z)));
  return b.finish();
}

// 0.5 * x * (1.0 + tanh)
Program finish_gelu_by_tanh(Builder& b, Operand x, Operand z) {
  const Operand half = eager(b, "half_x", Op::mul, b.constant("half", 0.5), x);
  const Operand tanh = eager_tanh(b, z);
  const Operand one = b.constant("one", 1);
  b.output("y", eager(b, "y", Op::mul, half, eager(b, "one_tanh", Op::add, one, tanh)));
  return b.finish();
}

constexpr double kRootTwoOverPi = 0x1.9884533d43651p-1;  // math.sqrt(2.0 / math.pi)

// 0.5 * x * (1.0 + tanh(sqrt(2 / pi) * (x + 0.044715 * pow(x, 3.0)))); pow is x * x * x in the tensor's format
Program build_gelu_new(const Binding& binding) {
  require_float_or_half(binding, "NewGELUActivation");
  Builder b("gelu", binding);
  const Operand x = b.input("x");
  const Operand square = eager(b, "x2", Op::mul, x, x);
  const Operand cube = eager(b, "x3", Op::mul, square, x);
  const Operand small = eager(b, "kappa_x3", Op::mul, number(b, "kappa", 0.044715), cube);
  const Operand sum = eager(b, "inner", Op::add, x, small);
  return finish_gelu_by_tanh(b, x, eager(b, "z", Op::mul, number(b, "beta", kRootTwoOverPi), sum));
}

// 0.5 * x * (1.0 + tanh(x * 0.7978845608 * (1.0 + 0.044715 * x * x)))
Program build_gelu_fast(const Binding& binding) {
  require_float_or_half(binding, "FastGELUActivation");
  Builder b("gelu", binding);
  const Operand x = b.input("x");
  const Operand left = eager(b, "beta_x", Op::mul, x, number(b, "beta", 0.7978845608));
  const Operand kx = eager(b, "kappa_x", Op::mul, number(b, "kappa", 0.044715), x);
  const Operand kxx = eager(b, "kappa_x2", Op::mul, kx, x);
  const Operand one = b.constant("inner_one", 1);
  const Operand right = eager(b, "inner", Op::add, one, kxx);
  return finish_gelu_by_tanh(b, x, eager(b, "z", Op::mul, left, right));
}

constexpr std::string_view kGapConstant[] = {"constant_in_binary64"};
constexpr std::string_view kGapTenDigits[] = {"constant_of_ten_digits"};
constexpr std::string_view kGapSigmoid[] = {"sigmoid_approximation"};

}  // namespace

constinit const CastPath timm_swish =
    activation_path("silu", "K", kElementwiseProfiles,
                    {.name = "timm.swish",
                     .title = "timm's swish: x * sigmoid(x), the sigmoid rounded to T first",
                     .source = {"huggingface/pytorch-image-models", "timm/layers/activations.py", "0d4c04f", "read"},
                     .required = "",
                     .optional = "",
                     .norm_attributes = {},
                     .gaps = {},
                     .build = build_swish});

constinit const CastPath diffusers_fp32_silu = activation_path(
    "silu", "L", kElementwiseProfiles,
    {.name = "diffusers.fp32_silu",
     .title = "FP32SiLU: silu of x.float(), one cast; bits of torch.silu",
     .source = {"huggingface/diffusers", "src/diffusers/models/activations.py:53-62", "58eb52c", "read"},
     .required = "",
     .optional = "",
     .norm_attributes = {},
     .gaps = {},
     .build = build_fp32_silu});

constinit const CastPath diffusers_approximate_gelu = activation_path(
    "gelu", "K", kElementwiseProfiles,
    {.name = "diffusers.approximate_gelu",
     .title = "ApproximateGELU: x * sigmoid(1.702 x) op by op, another function than GELU (by up to 0.0204)",
     .source = {"huggingface/diffusers", "src/diffusers/models/activations.py:149-167", "58eb52c", "read"},
     .required = "",
     .optional = "",
     .norm_attributes = {},
     .gaps = kGapSigmoid,
     .build = build_quick_gelu});

constinit const CastPath transformers_quick_gelu =
    activation_path("gelu", "K", kElementwiseProfiles,
                    {.name = "transformers.quick_gelu",
                     .title = "quick_gelu (CLIP): x * sigmoid(1.702 x) op by op, another function than GELU",
                     .source = {"huggingface/transformers", "src/transformers/activations.py", "v5.23.0", "read"},
                     .required = "",
                     .optional = "",
                     .norm_attributes = {},
                     .gaps = kGapSigmoid,
                     .build = build_quick_gelu});

constinit const CastPath transformers_gelu_new =
    activation_path("gelu", "K", kElementwiseProfiles,
                    {.name = "transformers.gelu_new",
                     .title = "gelu_new (GPT-2): the tanh form op by op, every operation rounded to T",
                     .source = {"huggingface/transformers", "src/transformers/activations.py", "v5.23.0", "read"},
                     .required = "",
                     .optional = "",
                     .norm_attributes = kApproximateTanh,
                     .gaps = kGapConstant,
                     .build = build_gelu_new});

constinit const CastPath transformers_gelu_fast =
    activation_path("gelu", "K", kElementwiseProfiles,
                    {.name = "transformers.gelu_fast",
                     .title = "gelu_fast: the tanh form factored, op by op, with sqrt(2 / pi) to ten digits",
                     .source = {"huggingface/transformers", "src/transformers/activations.py", "v5.23.0", "read"},
                     .required = "",
                     .optional = "",
                     .norm_attributes = kApproximateTanh,
                     .gaps = kGapTenDigits,
                     .build = build_gelu_fast});

}  // namespace norma::cast_paths
