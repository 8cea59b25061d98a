#!/bin/sh
# manpages.sh PROGRAM DIR: a manual page for each sub-command, tunneld-NAME.8, made of what PROGRAM NAME --help says, into DIR.
# A page of that name in docs/man, written by hand, takes its place.
set -eu
program=$1 dir=$2
top=$(dirname "$0")/..
date=$(sed -n 's/^\.Dd //p' "$top/docs/man/tunneld.8")
mkdir -p "$dir"
work=$(mktemp -d "$dir/.new.XXXXXX") # each page is there with all of it, or not
trap 'rm -rf "$work"' EXIT

# Text in, mdoc out: usage lines, paragraphs, indented examples, options with what they mean.
page='
function text(s) {
	gsub(/\\/, "\\e", s)
	gsub(/\.  +/, ".\n", s)
	if (s ~ /^[.\047]/) s = "\\\\&" s
	return s
}
function to(what) { # paragraph, literal, options or nothing
	if (state == what) return
	if (state == "literal") print ".Ed"
	if (state == "options") print ".El"
	if (what == "literal") print ".Bd -literal -offset indent"
	if (what == "options") print ".Bl -tag -width Ds"
	state = what
}
BEGIN { printf ".Dd %s\n.Dt TUNNELD-%s 8\n.Os\n.Sh NAME\n.Nm tunneld-%s\n.Nd %s\n.Sh SYNOPSIS\n.Bd -literal\n", date, toupper(name), name, text(summary); part = "usage" }
part == "usage" && /^(usage:|   )/ { sub(/^(usage:|      ) /, ""); print text($0); next }
part == "usage" { print ".Ed\n.Sh DESCRIPTION"; part = "rest"; state = "" ; gap = 0 }
/^$/ { gap = 1; next }
/^ +-/ {
	to("options")
	sub(/^ +/, "")
	at = match($0, /  +[^ ]/)
	option = at ? substr($0, 1, at - 1) : $0
	print ".It Li \"" text(option) "\""
	if (at) { rest = substr($0, at); sub(/^ +/, "", rest); print text(rest) }
	gap = 0
	next
}
state == "options" && /^      / { sub(/^ +/, ""); print text($0); next }
/^ / { to("literal"); sub(/^  /, ""); print text($0); gap = 0; next }
{ to("paragraph"); if (gap && wrote) print ".Pp"; print text($0); gap = 0; wrote = 1 }
END { to("") ; print ".Sh SEE ALSO\n.Xr tunneld.ini 5 ,\n.Xr tunneld 8" }
'
"$program" --help | sed -n 's/^  \([a-z][a-z-]*\)  *\([^ ].*\)$/\1 \2/p' | while read -r name summary; do
	own=$top/docs/man/tunneld-$name.8
	if [ -f "$own" ]; then
		cp "$own" "$work/tunneld-$name.8"
		continue
	fi
	"$program" "$name" --help | awk -v name="$name" -v summary="$summary" -v date="$date" "$page" >"$work/tunneld-$name.8"
done
mv "$work"/*.8 "$dir"
