#!/bin/sh
# Runs test programs (twice as many at a time as there are processors: most of them wait), shows only the output
# of those that fail, and counts.
jobs=${UNIT_JOBS:-$((2 * $(nproc 2>/dev/null || echo 2)))}
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
export dir
printf '%s\n' "$@" | xargs -P "$jobs" -I{} sh -c '
	log="$dir/$(echo "$1" | tr / _)"
	if "$1" >"$log" 2>&1; then mv "$log" "$log.pass"; else mv "$log" "$log.fail"; fi' sh {}
for f in "$dir"/*.fail; do
	[ -e "$f" ] || continue
	printf 'FAIL %s\n' "$(basename "$f" .fail)"
	cat "$f"
done
pass=$(find "$dir" -name '*.pass' | wc -l)
fail=$(($# - pass))
echo "unit programs: $pass passed, $fail failed"
[ $fail = 0 ]
