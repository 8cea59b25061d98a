#!/bin/sh
# The one list of Debian packages.  `debian-packages.sh build|run|test|bench|lint|fresh` installs what is missing of
# that set (all but fresh include build); `--list SET` only prints it.
set -eu
build="gcc make libc6-dev libev-dev libwslay-dev libcjson-dev libhiredis-dev libinih-dev libc-ares-dev libsqlite3-dev libseccomp-dev libcrypt-dev android-libboringssl-dev"
demo="python3 curl"
test="$demo libcmocka-dev clang libclang-rt-14-dev clang-format git openssh-client openssh-server redis-server redis-tools postgresql postgresql-client awscli iproute2 rsync openssl util-linux mandoc systemd procps zlib1g-dev valgrind prometheus chromium python3-jsonschema python3-boto3 python3-paramiko putty-tools dropbear-bin lintian fish zsh nginx-light haproxy dnsmasq-base bind9-dnsutils iperf3 proxychains4"
bench="openssh-client openssh-server stunnel4 python3 openssl util-linux"
lint="clang-format clang-tidy cppcheck python3"
fresh="debootstrap git util-linux"

list=no
[ "${1:-}" = "--list" ] && { list=yes; shift; }
case "${1:-build}" in
build) set -- $build ;;
run) set -- $build $demo ;;
test) set -- $build $test ;;
bench) set -- $build $demo $bench ;;
lint) set -- $build $lint ;;
fresh) set -- $fresh ;;
*) echo "usage: $0 [--list] build|run|test|bench|lint" >&2; exit 2 ;;
esac
[ $list = yes ] && { echo "$*" | tr ' ' '\n'; exit 0; }

missing=""
for p in "$@"; do
	dpkg-query -W -f='${db:Status-Status}\n' "$p" 2>/dev/null | grep -qx installed || missing="$missing $p"
done
[ -z "$missing" ] && exit 0

# Who cannot install is told the line that root types.
give_up() {
	echo "$1:$missing" >&2
	echo "as root: apt-get update && apt-get install -y --no-install-recommends$missing" >&2
	exit 1
}
command -v apt-get >/dev/null || { echo "missing packages:$missing (this script installs them with apt-get only)" >&2; exit 1; }
if [ "$(id -u)" = 0 ]; then
	sudo=""
elif command -v sudo >/dev/null; then
	sudo="sudo"
else
	give_up "missing packages, and neither root nor sudo to install them"
fi
echo "installing:$missing"
apt_get() { $sudo env DEBIAN_FRONTEND=noninteractive apt-get -q "$@" >/dev/null; }
apt_get install -y --no-install-recommends $missing 2>/dev/null ||
	{ apt_get update && apt_get install -y --no-install-recommends $missing; } || give_up "could not install"
