# Runs on a remote host without sshvpn, for as long as the tunnel is up: reads a
# program of $1 bytes with the SHA-256 $2 from standard input, checks that it is
# complete and runs here, and runs it as the agent. Prints lines that start with
# "sshvpn-push:": "system" with the kernel and machine, "send" when it wants the
# program, "run" before it runs it, "no" with a reason on a refusal, and "no-sudo"
# with sudo's words if the login is not root. If $3 is "gzip" and it can unpack that,
# it says "send gzip", and a line with the compressed length and so many bytes come
# instead.
umask 077
LC_ALL=C
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
export LC_ALL PATH
length=$1
sum=$2
form=$3
dir=

tell() { printf "sshvpn-push: %s\n" "$*"; }
refuse() {
    tell no "$*"
    exit 1
}
remove() {
    [ -z "$dir" ] || rm -rf "$dir"
    dir=
}
trap remove EXIT
trap "exit 1" HUP INT TERM PIPE

tell system "$(uname -s)" "$(uname -m)"

sudo=
if [ "$(id -u)" != 0 ]; then
    said=
    if ! command -v sudo >/dev/null || ! said=$(sudo -n true 2>&1 </dev/null); then
        tell no-sudo "$(printf %s "$said" | tr "\n" " ")"
        exit 1
    fi
    sudo="sudo -n"
fi

if command -v sha256sum >/dev/null; then
    digest() { sha256sum; }
elif command -v openssl >/dev/null; then
    digest() { openssl dgst -sha256 -r; }
elif command -v busybox >/dev/null && busybox sha256sum </dev/null >/dev/null 2>&1; then
    digest() { busybox sha256sum; }
else
    refuse "it lacks sha256sum, openssl and busybox, so the program cannot be verified"
fi

# usable BASE: makes a private directory in BASE; fails unless files can be run
# there and the program fits.
usable() {
    [ -d "$1" ] && dir=$(mktemp -d "$1/sshvpn-push.XXXXXX") || return
    program="$dir/sshvpn"
    printf "#!/bin/sh\n" >"$program" && chmod 700 "$program" && "$program" </dev/null &&
        head -c "$length" /dev/zero >"$program"
}
for base in "$XDG_RUNTIME_DIR" /tmp "$HOME" /dev/shm /var/tmp /run; do
    usable "$base" 2>/dev/null && break
    remove
done
[ -n "$dir" ] || refuse "no directory there has room for a program and may run it (XDG_RUNTIME_DIR, /tmp, the home, /dev/shm, /var/tmp, /run are full, read-only or noexec): install sshvpn there"

if [ "$form" != gzip ]; then
    unpack=
elif command -v gzip >/dev/null; then
    unpack=gzip
elif command -v busybox >/dev/null && busybox gzip -c </dev/null 2>/dev/null | busybox gzip -dc >/dev/null 2>&1; then
    unpack="busybox gzip"
else
    unpack=
fi
if [ -n "$unpack" ]; then
    tell send gzip
    read -r packed || refuse "it did not arrive"
    head -c "$packed" | $unpack -dc >"$program" || refuse "it cannot be unpacked, or written to $dir"
else
    tell send
    head -c "$length" >"$program" || refuse "it cannot be written to $dir"
fi
got=$(digest <"$program")
[ "${got%% *}" = "$sum" ] || refuse "what arrived is not what was sent (SHA-256)"
said=$("$program" --version 2>&1 </dev/null) ||
    refuse "it does not run there: $(printf %s "$said" | tr "\n" " ")"

tell run
$sudo "$program" agent --remove-self
# Not the last command: some shells would exec it, and then remove nothing.
exit $?
