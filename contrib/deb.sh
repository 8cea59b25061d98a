#!/bin/sh
# deb.sh BUILD VERSION: a Debian package of what `make install` installs, in BUILD/deb.  make deb calls it.
set -eu
build=$1 version=$2
here=$(cd "$(dirname "$0")" && pwd)
top=$(dirname "$here")
arch=$(dpkg --print-architecture)
maintainer=${DEB_MAINTAINER:-tunneld maintainers <maintainers@tunneld.invalid>}
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git -C "$top" log -1 --format=%ct 2>/dev/null || date +%s)}
export SOURCE_DATE_EPOCH
umask 022
root=$build/deb/root
rm -rf "$root"
mkdir -p "$root/DEBIAN"
"${MAKE:-make}" -s --no-print-directory -C "$top" install BUILD="$build" DESTDIR="$(cd "$root" && pwd)" PREFIX=/usr
doc=$root/usr/share/doc/tunneld

strip --strip-unneeded --remove-section=.comment --remove-section=.note "$root/usr/bin/tunneld"
gzip -9n "$root"/usr/share/man/man*/*
mv "$root/usr/lib/systemd" "$root/lib.systemd"
mkdir -p "$root/lib"
mv "$root/lib.systemd" "$root/lib/systemd"
rm "$doc/LICENSE"
cat >"$doc/copyright" <<END
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: tunneld

Files: *
Copyright: 2026 the authors of tunneld
License: Apache-2.0

License: Apache-2.0
 The text is in /usr/share/common-licenses/Apache-2.0.
END
printf 'tunneld (%s) stable; urgency=medium\n\n  * This version.\n\n -- %s  %s\n' "$version" "$maintainer" \
	"$(date -u -R -d "@$SOURCE_DATE_EPOCH")" | gzip -9n >"$doc/changelog.gz"
mkdir -p "$root/usr/share/lintian/overrides"
cat >"$root/usr/share/lintian/overrides/tunneld" <<'END'
# Debian has BoringSSL in a folder of its own, so that it is not taken for OpenSSL.
tunneld: custom-library-search-path
END

depends=$("$here/linked.sh" --direct "$build/tunneld" | awk '!seen[$1]++ { v = $2; sub(/-[^-]*$/, "", v);
		 printf "%s%s (>= %s)", sep, $1, v; sep = ", " }')
cat >"$root/DEBIAN/control" <<END
Package: tunneld
Version: $version
Architecture: $arch
Maintainer: $maintainer
Installed-Size: $(du -sk --exclude=DEBIAN "$root" | cut -f1)
Depends: $depends, systemd-standalone-sysusers | systemd, systemd-standalone-tmpfiles | systemd, passwd
Suggests: openssh-client, awscli
Section: net
Priority: optional
Description: TCP tunnels over AWS Session Manager's protocol
 tunneld carries TCP connections through sessions of AWS Session Manager, or
 of a gateway of one's own, and keeps them over broken links with every byte
 in order and in bounded memory. Forwarder, agent and gateway are one program.
END
for script in postinst prerm postrm; do
	install -m 0755 "$here/deb/$script" "$root/DEBIAN/$script"
done
(cd "$root" && find usr lib -type f | LC_ALL=C sort | xargs md5sum) >"$root/DEBIAN/md5sums"
find "$root" -newermt "@$SOURCE_DATE_EPOCH" -exec touch -hd "@$SOURCE_DATE_EPOCH" {} +
dpkg-deb --root-owner-group --build "$root" "$build/deb" >/dev/null
echo "$build/deb/tunneld_${version}_$arch.deb"
