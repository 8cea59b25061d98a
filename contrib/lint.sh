#!/bin/sh
# `make lint`, over the whole tree or over FILE="PATH…": the house's rules (house.py), clang-format, cppcheck, clang-tidy, and sh -n.
# Every finding fails.  Debian 12's clang-format lays the tree out: another version would find differences of its own.
set -u
format_major=14
defines='-D_GNU_SOURCE -DOPENSSL_IS_BORINGSSL -DTUNNELD_VERSION="lint"'

# One file, called through xargs: says something only when there is a finding.
if [ "${1:-}" = --tidy ]; then
	said=$(clang-tidy --quiet --warnings-as-errors='*' "$2" -- -I. $defines -isystem /usr/include/android -std=gnu11 2>&1) && exit 0
	printf '%s\n' "$said" | sed "s|^$PWD/||; /^[0-9]* warnings\{0,1\} \(generated\|treated as error\)/d"
	exit 1
fi

if [ $# = 0 ]; then
	whole=yes
	set -- $(find lib tunneld tests -name '*.[ch]' | sort) contrib/*.sh tests/*.sh
else
	whole=no
fi
fault=0
product='' units='' sources='' scripts=''
for f in "$@"; do
	[ -f "$f" ] || { echo "$f: no such file" >&2; exit 2; }
	case $f in *.c | *.h) sources="$sources $f" ;; *.sh) scripts="$scripts $f" ;; esac
	case $f in lib/*.[ch] | tunneld/*.[ch]) product="$product $f" ;; esac
	case $f in lib/*.c | tunneld/*.c) units="$units $f" ;; esac
done

house=$(python3 contrib/house.py) || house_fault=1
for f in "$@"; do
	[ $whole = no ] || break
	! printf '%s\n' "$house" | grep -F "$f:" || fault=1
done
if [ $whole = yes ]; then
	printf '%s\n' "$house"
	fault=${house_fault:-0}
fi

if [ -n "$sources" ]; then
	major=$(clang-format --version | sed -n 's/.*version \([0-9]*\).*/\1/p')
	if [ "$major" = $format_major ]; then
		differ=$(printf '%s\n' $sources | xargs clang-format --dry-run 2>&1 |
			sed -n 's/^\([^:]*:[0-9]*\):[0-9]*: warning: code should be clang-formatted.*/\1/p' | sort -t: -u -k1,1)
		[ -z "$differ" ] || { printf '%s\n' "$differ" | sed 's/$/: not laid out by clang-format (clang-format -i does it)/'; fault=1; }
	else
		echo "lint: clang-format $format_major lays this tree out (Debian 12's); here it is version ${major:-unknown}, the layout is not checked" >&2
		fault=1
	fi
fi
if [ -n "$product" ]; then
	cppcheck --quiet -j "$(nproc)" --enable=warning,portability --inline-suppr --suppress=missingIncludeSystem \
		--suppress=uninitvar:lib/wire_start.c --error-exitcode=1 -I. $defines $product || fault=1
fi
if [ -n "$units" ]; then
	# The largest first, so that no processor waits for another at the end.
	ls -S $units | xargs -P "$(nproc)" -n 1 sh "$0" --tidy || fault=1
fi
for f in $scripts; do
	sh -n "$f" || fault=1
done
[ $fault = 0 ] && echo 'lint: no findings'
exit $fault
