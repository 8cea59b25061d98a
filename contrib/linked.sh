#!/bin/sh
# linked.sh [--direct] PROGRAM: the Debian packages whose libraries PROGRAM is linked with: "PACKAGE VERSION ARCHITECTURE LIBRARY
# HOMEPAGE" a line.  --direct: only of those that it names itself.
set -eu
direct=no
[ "$1" = --direct ] && { direct=yes; shift; }
program=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
ldd "$program" | sed -n 's/^\t\([^ ]*\) => \(\/[^ ]*\) (.*/\1 \2/p' >"$work/loaded"
if [ $direct = yes ]; then
	readelf -d "$program" | sed -n 's/.*(NEEDED).*\[\(.*\)\]$/\1/p' >"$work/named"
	awk 'NR == FNR { named[$1]; next } $1 in named' "$work/named" "$work/loaded" >"$work/some"
	mv "$work/some" "$work/loaded"
fi
# A file may be known by its name before or behind the merge of / and /usr: all names of all files in one question.
while read -r library path; do
	real=$(realpath "$path")
	for p in "$real" "/usr$real" "${real#/usr}" "$path" "/usr$path" "${path#/usr}"; do
		echo "$p $library"
	done
done <"$work/loaded" >"$work/names"
cut -d' ' -f1 "$work/names" | xargs dpkg-query -S 2>/dev/null | sed 's/^\([^:, ]*\)[^ ]*.*: /\1 /' >"$work/owners" || true
awk 'NR == FNR { owner[$2] = $1; next } $1 in owner && !done[$2]++ { print owner[$1], $2 }' "$work/owners" "$work/names" >"$work/packages"
cut -d' ' -f1 "$work/packages" | sort -u | xargs dpkg-query -W -f='${Package} ${Version} ${Architecture} ${Homepage}\n' >"$work/versions"
awk 'NR == FNR { version[$1] = $2 " " $3; home[$1] = $4; next } { print $1, version[$1], $2, home[$1] }' "$work/versions" "$work/packages" | sort
while read -r library path; do
	grep -q " $library\$" "$work/packages" || { echo "no package has $path" >&2; exit 1; }
done <"$work/loaded"
