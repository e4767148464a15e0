#!/bin/sh
# What a machine with a GPU needs of norma, stripped, in one folder: the programs and the libraries that a bare Debian or Ubuntu
# lacks. Called by './run gpu-pack'.
#
# usage: pack.sh BUILD FOLDER PROGRAM...   (programs by their path under BUILD)
set -eu
build=$1
folder=$2
shift 2

rm -rf "$folder"
mkdir -p "$folder/lib"
for program; do
  mkdir -p "$folder/$(dirname "$program")"
  strip -o "$folder/$program" "$build/$program"
  # All but the C library and its parts, which must be those of the machine's own driver.
  ldd "$build/$program" | awk '$2 == "=>" && $3 ~ /^\// { print $3 }' |
    while read -r library; do
      case ${library##*/} in
        libc.so.* | libm.so.* | libdl.so.* | librt.so.* | libpthread.so.* | ld-linux*) ;;
        *) [ -e "$folder/lib/${library##*/}" ] || strip -o "$folder/lib/${library##*/}" "$(readlink -f "$library")" ;;
      esac
    done
  if ldd "$build/$program" | grep -q 'not found'; then
    echo "gpu-pack: $build/$program lacks a library here: $(ldd "$build/$program" | grep 'not found' | head -1)" >&2
    exit 2
  fi
done
# The newest symbols of the C library that anything here asks for: an older machine cannot run it.
needs=$(find "$folder" -type f -perm -u+x -exec objdump -T {} + 2>/dev/null | grep -o 'GLIBC_2\.[0-9]*' | sort -t. -k2 -n -u | tail -1)
echo "${needs:-GLIBC_unknown}" >"$folder/needs"
du -sk "$folder" | awk -v needs="$needs" -v folder="$folder" '{ printf "gpu-pack: %s, %.1f MB, needs %s\n", folder, $1 / 1024, needs }' >&2
