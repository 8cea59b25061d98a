#!/bin/sh
# Runs test programs one after the other, shows only the output of those that fail, and counts.
pass=0; fail=0
for t in "$@"; do
	if out=$("$t" 2>&1); then
		pass=$((pass + 1))
	else
		fail=$((fail + 1)); printf 'FAIL %s\n%s\n' "$t" "$out"
	fi
done
echo "unit programs: $pass passed, $fail failed"
[ $fail = 0 ]
