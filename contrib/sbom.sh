#!/bin/sh
# sbom.sh PROGRAM VERSION: what PROGRAM is linked with, as SPDX 2.3 in its tag-value form, on stdout.  Libraries that were linked in
# as archives (BORINGSSL_PREFIX=) are named by BORINGSSL_PREFIX and the commit there, when it is set.
set -eu
here=$(dirname "$0")
program=$1 version=$2
sum=$(sha256sum "$program" | cut -d' ' -f1)
when=$(date -u -d "@${SOURCE_DATE_EPOCH:-$(date +%s)}" +%Y-%m-%dT%H:%M:%SZ)
id() { echo "$1" | tr -c 'A-Za-z0-9.\n-' '-'; }

# package NAME VERSION SUPPLIER HOME PURL: one of those that it is linked with.
package() {
	printf '\nPackageName: %s\nSPDXID: SPDXRef-%s\nPackageVersion: %s\n' "$1" "$(id "$1")" "$2"
	printf 'PackageSupplier: %s\nPackageHomePage: %s\n' "$3" "$4"
	printf 'PackageDownloadLocation: NOASSERTION\nFilesAnalyzed: false\n'
	printf 'PackageLicenseConcluded: NOASSERTION\nPackageLicenseDeclared: NOASSERTION\nPackageCopyrightText: NOASSERTION\n'
	[ -z "$5" ] || printf 'ExternalRef: PACKAGE-MANAGER purl %s\n' "$5"
	printf 'Relationship: SPDXRef-tunneld %s SPDXRef-%s\n' "$6" "$(id "$1")"
}

cat <<END
SPDXVersion: SPDX-2.3
DataLicense: CC0-1.0
SPDXID: SPDXRef-DOCUMENT
DocumentName: tunneld-$version
DocumentNamespace: https://spdx.org/spdxdocs/tunneld-$version-$sum
Creator: Tool: contrib/sbom.sh
Created: $when

PackageName: tunneld
SPDXID: SPDXRef-tunneld
PackageVersion: $version
PackageSupplier: NOASSERTION
PackageDownloadLocation: NOASSERTION
FilesAnalyzed: false
PackageChecksum: SHA256: $sum
PackageLicenseConcluded: Apache-2.0
PackageLicenseDeclared: Apache-2.0
PackageCopyrightText: NOASSERTION
Relationship: SPDXRef-DOCUMENT DESCRIBES SPDXRef-tunneld
END
"$here/linked.sh" "$program" | awk '!seen[$1]++' | while read -r name debian arch library home; do
	package "$name" "$debian" "Organization: Debian" "${home:-NOASSERTION}" "pkg:deb/debian/$name@$(echo "$debian" | sed 's/:/%3A/g; s/+/%2B/g; s/~/%7E/g')?arch=$arch" DYNAMIC_LINK
done
if [ -n "${BORINGSSL_PREFIX:-}" ]; then
	commit=$(git -C "$BORINGSSL_PREFIX" rev-parse HEAD 2>/dev/null || echo NOASSERTION)
	package boringssl "$commit" "Organization: Google" https://boringssl.googlesource.com/boringssl "" STATIC_LINK
fi
