#!/bin/sh
# `make lint`: cppcheck and clang-tidy over lib/ and tunneld/ (findings fail), shell scripts parsed by sh -n,
# and the number of files that differ from .clang-format (no finding: tables and vectors are laid out by hand; V=1 lists them).
set -u
jobs=$(nproc)
fault=0 differ=0
cppcheck --quiet -j "$jobs" --enable=warning,portability --inline-suppr --suppress=missingIncludeSystem --suppress=uninitvar:lib/wire_start.c --error-exitcode=1 \
	-I. -D_GNU_SOURCE -DOPENSSL_IS_BORINGSSL -DTUNNELD_VERSION='"lint"' lib tunneld || fault=1
ls lib/*.c tunneld/*.c tunneld/*/*.c 2>/dev/null | xargs -P "$jobs" -n 4 sh -c 'clang-tidy --quiet --warnings-as-errors="*" "$@" -- -I. -D_GNU_SOURCE \
	-DTUNNELD_VERSION="\"lint\"" -isystem /usr/include/android -std=gnu11 2>/dev/null' sh || fault=1
for f in contrib/*.sh tests/*.sh; do
	sh -n "$f" || fault=1
done
for f in lib/*.[ch] tunneld/*.[ch] tunneld/*/*.[ch] tests/*/*.[ch] tests/daemon/*/*.[ch]; do
	clang-format --dry-run -Werror "$f" >/dev/null 2>&1 && continue
	differ=$((differ + 1))
	[ -z "${V:-}" ] || echo "not laid out by clang-format: $f"
done
[ $differ = 0 ] || echo "$differ files are not laid out by clang-format, which is no finding"
[ $fault = 0 ] && echo 'lint: no findings'
exit $fault
