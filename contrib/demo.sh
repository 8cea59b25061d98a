#!/bin/sh
# `make run`: a service, `tunneld local`, 64 MiB each way through the tunnel with their hashes compared.
# Stays up until Ctrl-C; with ONCE=1 or without a terminal it ends after the proof.
# TARGET=host:port makes a tunnel to any service instead.
set -eu
tunneld=${BUILD:-build}/tunneld
tmp=$(mktemp -d "${TMPDIR:-/tmp}/tunneld-demo-XXXXXX")
service='' tunnel='' teller='' ticker='' interrupted=''

# Ctrl-C reaches tunneld by itself; a second signal would cut what it is still ending.
cleanup() {
	trap '' INT TERM
	tick_end
	if [ -n "$tunnel" ]; then
		n=0
		while [ -n "$interrupted" ] && kill -0 "$tunnel" 2>/dev/null && [ $n -lt 30 ]; do
			sleep 0.1
			n=$((n + 1))
		done
		kill "$tunnel" 2>/dev/null || :
		wait "$tunnel" 2>/dev/null || :
	fi
	if [ -n "$service" ]; then
		kill "$service" 2>/dev/null || :
		wait "$service" 2>/dev/null || :
	fi
	if [ -n "$teller" ]; then
		kill "$teller" 2>/dev/null || :
		wait "$teller" 2>/dev/null || :
	fi
	rm -rf "$tmp"
}
trap cleanup EXIT
trap 'interrupted=1; exit 0' INT
trap 'exit 0' TERM

die() {
	echo "make run: $1" >&2
	[ ! -s "$tmp/log" ] || cat "$tmp/log" >&2
	exit 1
}

# wait_for PID WHAT COMMAND…: until the command succeeds, while the process lives.
wait_for() {
	pid=$1 what=$2 n=0
	shift 2
	until "$@"; do
		kill -0 "$pid" 2>/dev/null || die "$what ended before it was ready"
		n=$((n + 1))
		[ $n -lt 600 ] || die "$what is not ready after 30 s"
		sleep 0.05
	done
}

if [ -n "${TARGET:-}" ]; then
	target=$TARGET
else
	python3 contrib/demo_service.py >"$tmp/port" &
	service=$!
	wait_for $service 'the service' test -s "$tmp/port"
	target=127.0.0.1:$(cat "$tmp/port")
fi

STATE_DIRECTORY=$tmp/state
export STATE_DIRECTORY
: >"$tmp/log" # there before anybody looks into it
"$tunneld" local --target "$target" 2>"$tmp/log" &
tunnel=$!
wait_for $tunnel 'tunneld local' grep -q '^Ctrl-C ends it' "$tmp/log"
address=$(sed -n 's/^  tunnel   \([^ ]*\) -> .*/\1/p' "$tmp/log")
gateway=$(sed -n 's/^  gateway  //p' "$tmp/log")
[ -n "$address" ] || die 'tunneld local told no address'

echo "service   $target"
echo "gateway   $gateway   (TLS, control API and WebSockets; an agent is connected to it)"
echo "tunnel    $address   leads to the service"

# A sign that it goes on, once it has taken a second: on a terminal alone, and gone afterwards.
tick() {
	ticks=0
	while sleep 1; do
		ticks=$((ticks + 1))
		printf '\r\033[K%s … %d s' "$1" "$ticks" >&2
	done
}
tick_end() {
	[ -n "$ticker" ] || return 0
	kill "$ticker" 2>/dev/null || :
	wait "$ticker" 2>/dev/null || :
	ticker=''
	printf '\r\033[K' >&2
}

# transfer NAME CURL-ARGUMENT…: prints the rate; the body is in $tmp/body.
transfer() {
	name=$1
	shift
	if [ -t 2 ] && [ "${TERM:-dumb}" != dumb ]; then
		tick "$name" &
		ticker=$!
	fi
	seconds=$(curl -sS --noproxy '*' --max-time 300 -o "$tmp/body" -w '%{time_total}' "$@") || die "$name failed"
	tick_end
	echo "$seconds" | awk -v what="$name" '{ printf "%-9s 64 MiB in %.2f s, %.0f MiB/s", what, $1, 64 / $1 }'
}
check() {
	[ "$1" = "$2" ] || die "the hashes differ: $1 $2"
	echo ", SHA-256 $(echo "$1" | cut -c 1-16)… equal at both ends"
}

if [ -n "$service" ]; then
	head -c 67108864 /dev/urandom >"$tmp/up"
	transfer upload -T "$tmp/up" "http://$address/up"
	check "$(sha256sum <"$tmp/up" | cut -d ' ' -f 1)" "$(cat "$tmp/body")"
	transfer download "http://$address/blob"
	check "$(sha256sum <"$tmp/body" | cut -d ' ' -f 1)" "$(curl -sS --noproxy '*' --max-time 30 "http://$target/sum")"
	rm -f "$tmp/up" "$tmp/body"
fi

if [ -n "${ONCE:-}" ] || [ ! -t 0 ] || [ ! -t 1 ]; then
	exit 0
fi
echo
echo 'Try next, in another terminal:'
[ -z "$service" ] || echo "  curl http://$address/"
echo "  STATE_DIRECTORY=$STATE_DIRECTORY $tunneld status"
echo '  make run TARGET=host:port           a tunnel to any service that this machine reaches'
echo "  export AWS_SHARED_CREDENTIALS_FILE=$tmp/state/local/credentials AWS_CONFIG_FILE=$tmp/state/local/config"
echo "  aws --endpoint-url $gateway --ca-bundle $tmp/state/local/ca.pem ssm describe-sessions --state Active"
echo
echo 'Ctrl-C ends it.'
tail -n 0 -f "$tmp/log" & # why a connection fails, if one does
teller=$!
wait "$tunnel" || die 'tunneld local ended'
tunnel=''
