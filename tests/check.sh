#!/bin/sh
# What `make check` (or, with the argument long, `make check-long`) runs.  Each part's output goes to
# build/check/PART.log; on success one line is shown, on failure everything.
set -u
export CI=1 # warnings are errors, here as there
make=${MAKE:-make}
build=${BUILD:-build}
log=$build/check
mkdir -p "$log"
sums=$log/sums # a line for each part that has ended
: >"$sums"
parts=0
began=$(date +%s)

# part NAME COMMAND…: runs it, adds up its closing line "N passed, N failed[, N skipped]"; a part without one counts as one test.
part() {
	parts=$((parts + 1))
	name=$1
	shift
	t0=$(date +%s)
	"$@" >"$log/$name.log" 2>&1
	code=$?
	spent=$(($(date +%s) - t0))
	said=$(sed -n 's/.*\b\([0-9][0-9]*\) passed, \([0-9][0-9]*\) failed\(, \([0-9][0-9]*\) skipped\)\{0,1\}.*/\1 \2 \4/p' "$log/$name.log")
	p=0 f=0 s=0
	if [ -n "$said" ]; then
		while read -r a b c; do
			p=$((p + a)) f=$((f + b)) s=$((s + ${c:-0}))
		done <<-END
			$said
		END
	fi
	if [ $code != 0 ] && [ $f = 0 ]; then f=1; fi
	if [ $code = 0 ] && [ $p = 0 ] && [ $f = 0 ] && [ $s = 0 ]; then p=1; fi
	echo "$p $f $s" >>"$sums"
	printf '%-18s %5d passed, %d failed, %d skipped  (%d s)\n' "$name" $p $f $s $spent
	if [ $code != 0 ]; then
		cat "$log/$name.log"
	else
		grep -E '^(SKIP|UNSTEADY) ' "$log/$name.log"
	fi
	return $code
}

# beside NAME COMMAND…: the same, beside the parts that follow, until `wait`; for what counts and computes, and measures no time.
# What it says comes in one piece.
beside() {
	parts=$((parts + 1))
	(
		said=$(part "$@")
		echo "$said"
	) &
}

# The sum of all parts; a part without a line of its own has failed.
total() {
	passed=0 failed=$parts skipped=0
	while read -r p f s; do
		passed=$((passed + p)) failed=$((failed + f - 1)) skipped=$((skipped + s))
	done <"$sums"
	echo "$passed passed, $failed failed, $skipped skipped in $(($(date +%s) - began)) s"
	[ $failed = 0 ]
}

quiet() { $make --no-print-directory "$@"; }
# Most tests wait more than they work.
run() { python3 tests/e2e/run.py --jobs ${JOBS:-3} "$@"; }
san() { TUNNELD=$build/san/tunneld run "$@"; }

part build quiet -j2 all test-programs || { total; exit 1; }
if [ "${1:-}" = long ]; then
	part sim-long quiet sim-long
	part e2e-long run --only-long tests/e2e
	part fault-long run --only-long tests/fault
	part sanitizers-build quiet -j2 SANITIZE=1 all
	part sanitizers-e2e san tests/e2e
	part sanitizers-fault san tests/fault
else
	part house python3 contrib/house.py
	part house-tests run tests/house
	beside instructions+sim quiet -j2 -O check-instructions sim
	part unit quiet unit
	wait
	part sanitizers-build quiet -j2 SANITIZE=1 all test-programs
	part fuzz-corpus quiet -j2 SANITIZE=1 fuzz-replay
	beside sanitizers-sim quiet -j2 -O SANITIZE=1 sim-short
	part sanitizers-unit quiet SANITIZE=1 unit
	wait
	JOBS=4 part sanitizers-e2e san --short tests/e2e tests/fault
	JOBS=4 part e2e run tests/e2e
	part fault run tests/fault
fi
total
