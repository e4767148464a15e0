"""The Python client as a consumer uses it: numpy and torch arrays in, verdicts, measures and messages out."""

import os
import pathlib
import stat
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "python"))

import norma
from norma import _safetensors, _tensors

try:
    import numpy
except ImportError:
    print("SKIP: this Python has no numpy; apt-get install python3-numpy", file=sys.stderr)
    sys.exit(77)

try:
    import torch
except ImportError:
    torch = None
    print("no torch here: its tests are skipped (apt-get install python3-torch)", file=sys.stderr)

try:
    import ml_dtypes
except ImportError:
    ml_dtypes = None


def rows(count=4, cols=256, seed=1):
    """x and w in fp32, drawn from bits, not from a distribution of a library."""
    state = numpy.uint64(seed)
    values = []
    for _ in range(count * cols + cols):
        state = numpy.uint64((int(state) * 6364136223846793005 + 1442695040888963407) % 2**64)
        values.append((int(state) >> 40) / 2.0**23 - 1.0)
    flat = numpy.array(values, dtype=numpy.float32)
    return flat[: count * cols].reshape(count, cols), flat[count * cols :]


def rmsnorm(x, w, eps):
    """In binary64, rounded once."""
    wide = x.astype(numpy.float64)
    root = numpy.sqrt((wide * wide).mean(-1, keepdims=True) + eps)
    return (wide / root * w.astype(numpy.float64)).astype(x.dtype)


class Safetensors(unittest.TestCase):
    def test_what_is_written_reads_back(self):
        tensors = {
            "x": ("bf16", (2, 3), bytes(range(12))),
            "scale": ("fp32", (), b"\0\0\x80\x3f"),
            "q": ("e4m3fnuz", (3,), b"\1\2\3"),
        }
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "t.safetensors")
            _safetensors.write(path, tensors)
            self.assertEqual(_safetensors.read(path), tensors)
            with open(path, "rb") as file:
                content = file.read()
            with open(path, "wb") as file:
                file.write(content[:-1])
            with self.assertRaisesRegex(ValueError, "cut off"):
                _safetensors.read(path)

    def test_the_clients_libraries_stay_unimported(self):
        script = "import sys, norma; sys.exit(any(m in sys.modules for m in ('numpy', 'torch', 'ml_dtypes')))"
        environment = dict(os.environ, PYTHONPATH=str(ROOT / "python"))
        self.assertEqual(subprocess.run([sys.executable, "-c", script], env=environment).returncode, 0)


class Tensors(unittest.TestCase):
    def test_numpy_arrays_and_scalars(self):
        self.assertTrue(_tensors.is_tensor(numpy.zeros(3)))
        self.assertTrue(_tensors.is_tensor(numpy.zeros(())))
        for number in (1e-6, 1, "inside", numpy.float32(1e-6), numpy.float64(1e-6)):
            self.assertFalse(_tensors.is_tensor(number))

    def test_layout_and_byte_order_do_not_matter(self):
        a = numpy.arange(6, dtype=numpy.float32).reshape(2, 3)
        want = ("fp32", (2, 3), a.tobytes())
        self.assertEqual(_tensors.pack("x", a), want)
        self.assertEqual(_tensors.pack("x", numpy.asfortranarray(a)), want)
        self.assertEqual(_tensors.pack("x", a.astype(">f4")), want)
        self.assertEqual(_tensors.pack("x", numpy.arange(12, dtype=numpy.float32)[::2][:6].reshape(2, 3) / 2), want)

    def test_an_unknown_dtype_is_named(self):
        with self.assertRaisesRegex(ValueError, "'x' is int64; norma takes float64, float32, bfloat16"):
            _tensors.pack("x", numpy.zeros(2, dtype=numpy.int64))

    @unittest.skipIf(torch is None, "torch is not installed")
    def test_torch_tensors(self):
        t = torch.tensor([[1.0, -2.0], [0.5, 3.0]]).to(torch.bfloat16)
        self.assertEqual(_tensors.pack("x", t), ("bf16", (2, 2), b"\x80\x3f\x00\xc0\x00\x3f\x40\x40"))
        self.assertEqual(_tensors.pack("x", t.t())[2], b"\x80\x3f\x00\x3f\x00\xc0\x40\x40")
        self.assertEqual(_tensors.pack("s", torch.tensor(1.0)), ("fp32", (), b"\0\0\x80\x3f"))
        back = _tensors.unpack(("bf16", (2, 2), _tensors.pack("x", t)[2]), t)
        self.assertTrue(torch.equal(back, t))

    @unittest.skipIf(ml_dtypes is None, "ml_dtypes is not installed")
    def test_ml_dtypes_arrays(self):
        a = numpy.array([1.0, -2.0], dtype=ml_dtypes.bfloat16)
        self.assertEqual(_tensors.pack("x", a), ("bf16", (2,), b"\x80\x3f\x00\xc0"))
        b = numpy.array([1.0, -2.0], dtype=ml_dtypes.float8_e4m3fn)
        self.assertEqual(_tensors.pack("x", b), ("e4m3fn", (2,), b"\x38\xc0"))


class Program(unittest.TestCase):
    def setUp(self):
        self.saved = dict(os.environ)

    def tearDown(self):
        os.environ.clear()
        os.environ.update(self.saved)

    def fake(self, folder, body):
        path = os.path.join(folder, "norma")
        with open(path, "w") as file:
            file.write("#!/bin/sh\n" + body)
        os.chmod(path, os.stat(path).st_mode | stat.S_IXUSR)
        return path

    def test_a_missing_program_is_said_aloud(self):
        os.environ["NORMA"] = "/no/such/norma"
        with self.assertRaisesRegex(norma.NormaError, r"\$NORMA is '/no/such/norma', which is no program"):
            norma.find_program()

    def test_the_variable_goes_before_the_path(self):
        with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as two:
            on_path = self.fake(one, "exit 0\n")
            named = self.fake(two, "exit 0\n")
            os.environ["PATH"] = one + os.pathsep + os.environ["PATH"]
            os.environ["NORMA"] = named
            self.assertEqual(norma.find_program(), named)
            del os.environ["NORMA"]
            self.assertEqual(norma.find_program(), on_path)

    def test_refusals_and_silence_become_errors(self):
        x, w = rows(1, 8)
        with tempfile.TemporaryDirectory() as folder:
            os.environ["NORMA"] = self.fake(folder, "echo \"unknown norm 'rmsmorn'\" >&2; exit 2\n")
            with self.assertRaisesRegex(norma.NormaError, "unknown norm 'rmsmorn'"):
                norma.check("rmsmorn", x=x, y=x, limit="max_ulp<=1")
            os.environ["NORMA"] = self.fake(folder, "exit 0\n")
            with self.assertRaisesRegex(norma.NormaError, "printed no record"):
                norma.check("rmsnorm", x=x, y=x, limit="max_ulp<=1")
            os.environ["NORMA"] = self.fake(folder, "exec sleep 60\n")
            with self.assertRaisesRegex(norma.NormaError, "no answer within 0.2 s"):
                norma.check("rmsnorm", x=x, y=x, limit="max_ulp<=1", timeout=0.2)

    def test_the_command_line(self):
        x, w = rows(1, 8)
        with tempfile.TemporaryDirectory() as folder:
            log = os.path.join(folder, "log")
            os.environ["NORMA"] = self.fake(folder, "printf '%%s\\n' \"$@\" > %s; exit 2\n" % log)
            with self.assertRaises(norma.NormaError):
                norma.check("rmsnorm", x=x, weight=w, eps=1e-6, eps_place="outside", y=x, path="a.b", profile="p",
                            limit=["max_ulp<=1", "bias_ulp<=0.1"])
            with open(log) as file:
                words = file.read().split("\n")[:-1]
        self.assertEqual(words[:3] + words[4:5], ["check", "rmsnorm", "--in", "--got"])
        self.assertEqual(words[6:], ["--set", "eps=1e-06", "--set", "eps_place=outside", "--path", "a.b", "--set",
                                     "profile=p", "--limit", "max_ulp<=1", "--limit", "bias_ulp<=0.1", "--json"])


class Client(unittest.TestCase):
    """Against the real program."""

    @classmethod
    def setUpClass(cls):
        norma.find_program()
        cls.x, cls.w = rows()
        cls.y = rmsnorm(cls.x, cls.w, 1e-6)

    def test_a_good_kernel_passes(self):
        result = norma.check("rmsnorm", x=self.x, weight=self.w, eps=1e-6, y=self.y, limit="max_ulp<=0.51")
        self.assertTrue(result, result.text)
        self.assertEqual((result.verdict, result.exit), ("pass", 0))
        self.assertLessEqual(result.measures["max_ulp"], 0.5 + 2**-16)
        self.assertGreater(result.measures["max_ulp"], 0.3)
        self.assertEqual(result.measures["unfaithful"], 0)
        norma.assert_norm("rmsnorm", x=self.x, weight=self.w, eps=1e-6, y=self.y, limit="max_ulp<=0.51")

    def test_a_bad_kernel_fails_with_a_message(self):
        wrong = self.y.copy()
        wrong[2, 17] *= numpy.float32(1.001)
        with self.assertRaises(AssertionError) as caught:
            norma.assert_norm("rmsnorm", x=self.x, weight=self.w, eps=1e-6, y=wrong, limit="max_ulp<=0.51")
        text = str(caught.exception)
        at = 0
        for fact in ("norma: fail", "why ", "at      y[2, 17]", "got ", "exact ", "error ", "bound   max_ulp<=0.51",
                     "repro   norma check rmsnorm --in FILE --set eps=1e-06 --limit 'max_ulp<=0.51'"):
            self.assertIn(fact, text[at:])
            at = text.index(fact, at)

    def test_nan_never_passes(self):
        wrong = self.y.copy()
        wrong[0, 0] = numpy.nan
        result = norma.check("rmsnorm", x=self.x, weight=self.w, eps=1e-6, y=wrong, limit="mean_ulp<=1000")
        self.assertEqual((bool(result), result.exit), (False, 1))
        self.assertEqual(result.measures["nan_unexpected"], 1)

    def test_without_a_criterion(self):
        result = norma.check("rmsnorm", x=self.x, weight=self.w, eps=1e-6, y=self.y)
        self.assertEqual((result.verdict, bool(result)), ("skip", False))
        self.assertLessEqual(result.measures["max_ulp"], 0.51)
        with self.assertRaisesRegex(ValueError, "assert_norm needs a criterion"):
            norma.assert_norm("rmsnorm", x=self.x, weight=self.w, eps=1e-6, y=self.y)
        with self.assertRaisesRegex(ValueError, "path='auto' lists paths"):
            norma.assert_norm("rmsnorm", x=self.x, weight=self.w, eps=1e-6, y=self.y, path="auto")

    def test_a_path_is_held_bit_for_bit(self):
        result = norma.check("rmsnorm", x=self.x, weight=self.w, eps=1e-6, y=self.y, path="bfl.flux.rmsnorm")
        self.assertEqual(result.verdict, "fail")  # rounds once; the path rounds in every step
        self.assertGreater(result.measures["differing"], 0)

    def test_refusals_are_the_programs_own_sentences(self):
        with self.assertRaisesRegex(norma.NormaError, "max_ulps"):
            norma.check("rmsnorm", x=self.x, weight=self.w, eps=1e-6, y=self.y, limit="max_ulps<=1")
        with self.assertRaisesRegex(norma.NormaError, "rmsmorn"):
            norma.check("rmsmorn", x=self.x, y=self.y, limit="max_ulp<=1")
        with self.assertRaisesRegex(ValueError, "check needs the output"):
            norma.check("rmsnorm", x=self.x, limit="max_ulp<=1")

    def test_the_tensors_of_a_failed_check_are_kept(self):
        with tempfile.TemporaryDirectory() as folder:
            result = norma.check("rmsnorm", x=self.x, weight=self.w, eps=1e-6, y=self.y * 2, limit="max_ulp<=1",
                                 keep=os.path.join(folder, "kept"))
            command = result.text.splitlines()[-1].split("repro", 1)[1].strip()
            self.assertTrue(command.startswith("norma check rmsnorm --in " + folder))
            done = subprocess.run(command.replace("norma", norma.find_program(), 1), shell=True,
                                  stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            self.assertEqual(done.returncode, 1, done.stderr)

    def test_truth_encloses_and_rounds(self):
        found = norma.truth("rmsnorm", x=self.x, weight=self.w, eps=1e-6, round_to="fp32")
        self.assertEqual(found["lo"].dtype, numpy.float64)
        wide = self.x.astype(numpy.float64)
        y = wide / numpy.sqrt((wide * wide).mean(-1, keepdims=True) + 1e-6) * self.w.astype(numpy.float64)
        self.assertTrue((found["lo"] <= found["hi"]).all())
        self.assertTrue((numpy.abs(found["lo"] - y) <= numpy.abs(y) * 2**-44).all())
        self.assertTrue((found["rounded"] == self.y).all())

    @unittest.skipIf(torch is None, "torch is not installed")
    def test_torch_bf16(self):
        x, w = (torch.from_numpy(a.copy()).to(torch.bfloat16) for a in (self.x, self.w))
        wide = x.float()
        y = (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + 1e-6) * w.float()).to(torch.bfloat16)
        norma.assert_norm("rmsnorm", x=x, weight=w, eps=1e-6, y=y, limit="max_ulp<=0.6")
        found = norma.truth("rmsnorm", x=x, weight=w, eps=1e-6, round_to="bf16")
        self.assertEqual(found["rounded"].dtype, torch.bfloat16)
        self.assertGreater((found["rounded"] == y).float().mean().item(), 0.99)


if __name__ == "__main__":
    unittest.main()
