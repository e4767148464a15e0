#!/bin/sh
# The check on a machine with a GPU, from carried binaries: needs sh, a driver and a GPU; no network, no compiler. Called by
# './run gpu-check'. Each step prints one line and leaves one file in OUT:
#
#   provenance.json       the GPU, its driver, what the kernels were compiled with, norma's commit, the binary's hash
#   bits.txt              all kernels' bits and all casts, by impls_cuda_gpu_test
#   run.jsonl             the suite 'cuda': every kernel against truth and ideal
#   sanitizer.txt         compute-sanitizer on a few cases, where there is one
#   speed.jsonl           kernels beside a copy of as many bytes
#   torch.jsonl           torch's own on the same shapes, where there is a torch
#   outputs.safetensors   the bits of the suite 'cuda_record', to be committed under impls/recorded
#
# usage: check.sh FOLDER OUT [--quick]   FOLDER: a build folder, or what './run gpu-pack' made
# Exit codes: 0 all held; 77 no GPU here; 1 something failed; 2 bad usage.
set -u
folder=$1
out=$2
quick=${3-}
norma=$folder/bin/norma
mkdir -p "$out"
rm -f "$out/provenance.json" "$out/bits.txt" "$out/run.jsonl" "$out/sanitizer.txt" "$out/speed.jsonl" "$out/torch.jsonl" \
  "$out/outputs.safetensors"
failed=0

say() { printf 'gpu-check: %s\n' "$*"; }
fail() {
  say "FAILED: $*"
  failed=1
}
# carried PROGRAM ARGUMENT...: with the libraries beside it, which no other program is to see.
carried() {
  if [ -d "$folder/lib" ]; then LD_LIBRARY_PATH=$folder/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} "$@"; else "$@"; fi
}
seconds() { date +%s; }

# ---- Is there a GPU that this norma can use? ---------------------------------------------------------------

if ! carried "$norma" list devices --json >"$out/devices.json" 2>"$out/error.txt"; then
  say "FAILED: $norma does not run here: $(head -1 "$out/error.txt")"
  exit 1
fi
rm -f "$out/error.txt"
value() { sed -n "s/^ *\"$1\": \"\(.*\)\",\{0,1\}\$/\1/p" "$out/devices.json" | head -1; }
problem=$(value problem)
if [ -n "$problem" ]; then
  rm -f "$out/devices.json"
  case $problem in
    'there is no CUDA device'* | 'there is no NVIDIA driver'* | 'this norma was built without CUDA'*)
      say "nothing to check: $problem"
      exit 77
      ;;
    *)
      say "FAILED: $problem"
      exit 1
      ;;
  esac
fi

# ---- Provenance --------------------------------------------------------------------------------------------

smi() { nvidia-smi --id=0 --query-gpu="$1" --format=csv,noheader 2>/dev/null | head -1 | tr -d '"\\'; }
hash_of() { sha256sum "$1" 2>/dev/null | cut -d' ' -f1; }
provenance() {
  printf '{\n'
  printf ' "norma": "%s",\n' "$(carried "$norma" --version)"
  printf ' "binary_sha256": "%s",\n' "$(hash_of "$norma")"
  for name in device capability driver runtime compiler flags code; do printf ' "%s": "%s",\n' "$name" "$(value $name)"; done
  printf ' "driver_version": "%s",\n' "$(smi driver_version)"
  printf ' "clocks": "%s",\n' "$(smi clocks.max.sm,clocks.max.mem,clocks.sm,clocks.mem,power.limit)"
  printf ' "cpu": "%s",\n' "$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1)"
  printf ' "date": "%s"' "$(date -u +%Y-%m-%d)"
  [ $# = 0 ] || printf ',\n "outputs_sha256": "%s",\n "verdicts": {%s}' "$1" "$2"
  printf '\n}\n'
}
provenance >"$out/provenance.json"
say "$(value device), compute capability $(value capability), driver $(smi driver_version), code $(value code)"

# ---- Bits --------------------------------------------------------------------------------------------------

begun=$(seconds)
if carried "$folder/tests/impls_cuda_gpu_test" >"$out/bits.txt" 2>&1; then
  say "bits: $(tail -n 2 "$out/bits.txt" | head -1) ($(($(seconds) - begun)) s)"
else
  fail "bits: impls_cuda_gpu_test: $(grep -m1 'FAILED\|assertions' "$out/bits.txt"); see bits.txt"
fi

# verdicts FILE: '"pass": 12, "skip": 3' of a run.
verdicts() {
  sed -n 's/.*"verdict":"\([a-z]*\)".*/\1/p' "$1" | sort | uniq -c | awk '{ printf "%s\"%s\": %d", (NR > 1 ? ", " : ""), $2, $1 }'
}
begun=$(seconds)
suite=@cuda
torch_seconds=90
[ -z "$quick" ] || { suite=@cuda_record; torch_seconds=30; }
if carried "$norma" run $suite --impl 'cuda.*' --out "$out/run.jsonl" >"$out/failures.txt" 2>&1; then
  if grep -q '"verdict":"pass"' "$out/run.jsonl"; then
    rm -f "$out/failures.txt"
    say "run.jsonl: $(verdicts "$out/run.jsonl") ($(($(seconds) - begun)) s)"
  else
    fail "run.jsonl: no kernel ran: $(verdicts "$out/run.jsonl")"
  fi
else
  fail "run.jsonl: $(verdicts "$out/run.jsonl"); see failures.txt"
fi

# ---- Races, barriers, bounds -------------------------------------------------------------------------------

sanitizer=$(command -v compute-sanitizer || ls /usr/local/cuda*/bin/compute-sanitizer 2>/dev/null | tail -1)
if [ -z "$sanitizer" ]; then
  say "compute-sanitizer: not on this machine, so memcheck, racecheck and synccheck were not run"
else
  : >"$out/sanitizer.txt"
  for tool in memcheck racecheck synccheck; do
    begun=$(seconds)
    if carried timeout 60 "$sanitizer" --tool $tool --error-exitcode 9 "$norma" run @cuda_record --impl 'cuda.*' --jobs 1 \
      >>"$out/sanitizer.txt" 2>&1; then
      say "compute-sanitizer $tool: clean ($(($(seconds) - begun)) s)"
    else
      fail "compute-sanitizer $tool: exit $?; see sanitizer.txt"
    fi
  done
fi

# ---- Speed -------------------------------------------------------------------------------------------------

begun=$(seconds)
if carried "$folder/bin/norma_gpu_speed" $quick --out "$out/speed.jsonl" >"$out/error.txt" 2>&1; then
  say "speed: $(tail -1 "$out/error.txt") ($(($(seconds) - begun)) s)"
  rm -f "$out/error.txt"
else
  fail "speed: $(tail -1 "$out/error.txt")"
fi
if ! command -v python3 >/dev/null; then
  say "torch: not compared: there is no python3"
elif [ -s "$out/speed.jsonl" ]; then
  begun=$(seconds)
  python3 "$(dirname "$0")/torch_speed.py" "$out/speed.jsonl" "$out/torch.jsonl" --seconds "$torch_seconds" >"$out/error.txt" 2>&1
  case $? in
    0) say "$(tail -1 "$out/error.txt") ($(($(seconds) - begun)) s)" ;;
    77) say "torch: $(tail -1 "$out/error.txt")" ;;
    *) say "torch: the comparison broke off: $(tail -1 "$out/error.txt")" ;;
  esac
  rm -f "$out/error.txt"
fi

# ---- What is kept ------------------------------------------------------------------------------------------

if carried "$norma" run @cuda_record --impl 'cuda.*' --out "$out/kept.jsonl" --outputs "$out/outputs.safetensors" >"$out/error.txt" 2>&1; then
  provenance "$(hash_of "$out/outputs.safetensors")" "$(verdicts "$out/kept.jsonl")" >"$out/provenance.json"
  say "outputs.safetensors: $(verdicts "$out/kept.jsonl"); commit it with provenance.json under impls/recorded/"
else
  fail "outputs.safetensors: $(tail -1 "$out/error.txt")"
fi
rm -f "$out/error.txt" "$out/kept.jsonl" "$out/devices.json"
[ $failed = 0 ] && say "all held" || say "not all held"
exit $failed
