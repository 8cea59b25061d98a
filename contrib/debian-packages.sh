#!/bin/sh
# The one list of Debian packages.  `debian-packages.sh build|test|bench`
# installs what is missing of that set (test includes build); `--list SET` only prints it.
set -eu
build="gcc make libc6-dev libev-dev libwslay-dev libcjson-dev libinih-dev libc-ares-dev libsqlite3-dev android-libboringssl-dev"
demo="python3 curl"
test="$demo libcmocka-dev clang libclang-rt-14-dev git openssh-client openssh-server redis-server redis-tools postgresql postgresql-client awscli iproute2 rsync openssl util-linux mandoc systemd procps zlib1g-dev"
bench="openssh-client openssh-server stunnel4 python3 redis-tools openssl"
lint="clang-format clang-tidy cppcheck"

list=no
[ "${1:-}" = "--list" ] && { list=yes; shift; }
case "${1:-build}" in
build) set -- $build ;;
run) set -- $build $demo ;;
test) set -- $build $test ;;
bench) set -- $build $demo $bench ;;
lint) set -- $build $lint ;;
*) echo "usage: $0 [--list] build|run|test|bench|lint" >&2; exit 2 ;;
esac
[ $list = yes ] && { echo "$*" | tr ' ' '\n'; exit 0; }

missing=""
for p in "$@"; do
	dpkg-query -W -f='${db:Status-Status}\n' "$p" 2>/dev/null | grep -qx installed || missing="$missing $p"
done
[ -z "$missing" ] && exit 0
if [ "$(id -u)" = 0 ]; then sudo=""; else sudo="sudo"; fi
if ! command -v apt-get >/dev/null; then
	echo "missing packages:$missing (this script installs them with apt-get only)" >&2; exit 1
fi
echo "installing:$missing"
export DEBIAN_FRONTEND=noninteractive
$sudo apt-get install -y --no-install-recommends $missing >/dev/null 2>&1 ||
	{ $sudo apt-get update -q >/dev/null && $sudo apt-get install -y --no-install-recommends $missing >/dev/null; } ||
	{ echo "could not install:$missing (try: apt-get install$missing)" >&2; exit 1; }
