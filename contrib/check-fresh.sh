#!/bin/sh
# `make check-fresh`: the README's two commands, `ONCE=1 make run` and `make check`, in a fresh clone of HEAD in a Debian 12 that
# has nothing but make, git and ca-certificates.  FRESH=run or FRESH=check: only that one.
# debootstrap makes the root in a folder of its own; mirror and proxy are those of this machine's apt.  All processes and mounts
# live in namespaces of their own, which end with them, and the folder is removed on every way out.
set -eu
suite=bookworm
tree=/root/tunneld # as root's home is: other users cannot enter it

say() { echo "check-fresh: $*"; }
die() {
	say "$*" >&2
	exit 1
}

# In the namespaces, as their first process.  $1: the root.
inside() {
	root=$1
	mirror=$(sed -n "s/^deb \([^ ]*\) $suite .*/\1/p;T;q" "$root.sources")
	# A mount of its own, so that what runs in it can make namespaces as on a machine.
	mkdir "$root"
	mount --bind "$root" "$root"
	say "debootstrap $suite"
	debootstrap --variant=minbase --include=make,git,ca-certificates $suite "$root" $mirror >"$root.log" 2>&1 ||
		{ tail -n 20 "$root.log" >&2; die 'debootstrap failed'; }
	[ -z "$mirror" ] || cp "$root.sources" "$root/etc/apt/sources.list"
	cp "$root.conf" "$root/etc/apt/apt.conf.d/00host"
	cp /etc/resolv.conf /etc/hosts "$root/etc/"
	# The network is this machine's: nothing that a package brings starts by itself.
	printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
	chmod 755 "$root/usr/sbin/policy-rc.d"
	mount -t proc proc "$root/proc"
	mount --rbind /dev "$root/dev"
	mount -t sysfs -o ro sysfs "$root/sys" || :
	git clone -q --no-hardlinks . "$root$tree"
	[ -z "$(git status --porcelain)" ] || say 'what is not committed is not in the clone'

	failed=''
	for what in $commands; do
		began=$(date +%s)
		say "make $what"
		case $what in run) once='ONCE=1' ;; *) once='' ;; esac
		code=0
		chroot "$root" /usr/bin/env -i HOME=/root LANG=C.UTF-8 TERM="${TERM:-dumb}" PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
			${CI:+CI="$CI"} $once sh -c "cd $tree && exec make $what" </dev/null || code=$?
		say "make $what: exit $code in $(($(date +%s) - began)) s"
		[ $code = 0 ] || failed="$failed $what"
	done
	[ -z "$failed" ] || die "failed in a fresh Debian:$failed"
}

commands=${FRESH:-run check}
for what in $commands; do
	case $what in run | check) ;; *) die "FRESH=run or FRESH=check, not $what" ;; esac
done
if [ "${1:-}" = --inside ]; then
	inside "$2"
	exit 0
fi

[ "$(id -u)" = 0 ] || die 'a root of its own requires to be root (debootstrap, mounts)'
cd "$(dirname "$0")/.."
contrib/debian-packages.sh fresh
dir=$(mktemp -d "${TMPDIR:-/var/tmp}/tunneld-fresh-XXXXXX")
worker=''
clean() {
	trap '' INT TERM HUP
	if [ -n "$worker" ]; then # its end is the end of everything in the namespaces
		kill -KILL "$worker" 2>/dev/null || :
		wait "$worker" 2>/dev/null || :
	fi
	n=0
	until rm -rf --one-file-system "$dir" 2>/dev/null || [ $n = 50 ]; do
		n=$((n + 1))
		sleep 0.1
	done
	[ ! -e "$dir" ] || say "$dir could not be removed" >&2
}
trap clean EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# Which mirror and proxy: asked of apt now, kept beside the root until it is there.
apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' |
	grep -E "^[^ ]+ $suite(-updates|-security)? main\$" | sed 's/^/deb /' >"$dir/root.sources" ||
	say "apt of this machine has no $suite: debootstrap's own mirror"
apt-config dump | grep -E '^Acquire::([a-z]+::)?(Proxy|Check-|Retries|AllowInsecure|Verify-)' >"$dir/root.conf" || :
eval "$(apt-config shell proxy Acquire::http::Proxy)"
[ -z "${proxy:-}" ] || export http_proxy="$proxy"

# A shell lets what it starts in the background ignore Ctrl-C.
env --default-signal=INT,QUIT unshare --mount --pid --fork --kill-child --propagation private sh "$0" --inside "$dir/root" &
worker=$!
code=0
wait $worker || code=$?
worker=''
exit $code
