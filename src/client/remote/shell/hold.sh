# Runs on the remote host for as long as a tunnel is up. Reads lines from standard
# input: "U command" notes how to undo the next step, "D command" does the step,
# and is answered by "ok TEXT" or "no TEXT" on one line. At the end of the input
# (the connection is closed, or the tunnel is down) or at SIGTERM it undoes
# everything, last first. The undo commands also stand in a file, so that the next
# process can run them if this one is killed.
umask 077
LC_ALL=C
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
export LC_ALL PATH
undo=
dir=/run/sshvpn
born() { sed -n "s/^.*) //p" "/proc/$1/stat" 2>/dev/null | cut -d " " -f 20; }
alive() { [ -n "$2" ] && [ "$(born "$1")" = "$2" ]; }
me="$$ $(born $$)"

# Holds a lock until the end of the step, if flock exists.
lock() { exec 9<"$dir" && flock 9 2>/dev/null; }

# agent_has FILE REST: whether the journal of an sshvpn agent or server lists the
# setting FILE, followed by REST.
agent_has() { grep -qsF "\"setting\":\"$1\"$2" "$dir"/*.json "$dir"/server/*.json; }

# hold FILE VALUE: sets a file under /proc/sys; it is restored once the last holder
# has released it.
hold() {
    # A server with its own user reads these files.
    umask 022
    lock
    held="$dir/held/$(echo "$1" | tr / ,)"
    now=$(cat "/proc/sys/$1") || return
    # "ours" is written last: it says that the other files are complete.
    if [ ! -f "$held/ours" ]; then
        # The value may be set already: by an sshvpn agent, whose journal has
        # the value from before, or permanently.
        for value in 0 1; do agent_has "$1" ",\"before\":\"$value\"" && now=$value; done
        [ "$now" = "$2" ] && return
        mkdir -p "$held" && grep -l 1 "/proc/sys/${1%/all/*}"/*/"${1##*/}" >"$held/others" 2>/dev/null
        echo "$now" >"$held/before" && echo "$2" >"$held/ours" || return
    fi
    echo "$me" >"$held/by-$$" || return
    echo "$2" >"/proc/sys/$1"
}
# put FILE VALUE: sets a file that disappears with its device.
put() { echo "$2" >"/proc/sys/$1"; }

# each COMMAND FILE VALUE [FILE VALUE ...]: sets each existing FILE to its VALUE by
# COMMAND; prints those that COMMAND could not set.
each() {
    by=$1
    shift
    while [ $# -ge 2 ]; do
        is=$(cat "/proc/sys/$1" 2>/dev/null) && [ "$is" != "$2" ] && ! "$by" "$1" "$2" 2>/dev/null && echo "$1"
        shift 2
    done
    :
}

release() {
    lock
    held="$dir/held/$(echo "$1" | tr / ,)"
    [ -d "$held" ] || return 0
    rm -f "$held/by-$2"
    for by in "$held"/by-*; do
        [ -e "$by" ] || continue
        read -r pid start <"$by"
        alive "$pid" "$start" && return 0
    done
    # The journal of an agent lists it: the last agent restores it.
    if agent_has "$1"; then
        :
    elif [ "$(cat "/proc/sys/$1" 2>/dev/null)" = "$(cat "$held/ours")" ]; then
        cat "$held/before" >"/proc/sys/$1"
        # Setting "all" set every interface; these had 1 before.
        case $1 in */all/*) while read -r other; do echo 1 >"$other"; done <"$held/others" ;; esac
    fi
    rm -rf "$held"
}

# Runs the undo commands, one in each line of $1, which has the latest first.
run_undo() {
    while IFS= read -r line; do
        [ -n "$line" ] && (eval "$line") </dev/null >/dev/null 2>&1
    done <<END
$1
END
}
finish() {
    trap "" TERM
    run_undo "$undo"
    [ -n "$journal" ] && rm -f "$journal"
    (lock && rmdir "$dir/held"; rmdir "$dir") 2>/dev/null
    echo undone 2>/dev/null
    exit 0
}
trap "" HUP INT QUIT PIPE
trap finish TERM

# recover FILE: undoes what a killed process left in FILE, which is open as 8. The
# process that gets the lock does it; the others wait until it is done.
recover() {
    flock 8 2>/dev/null
    [ -s "$1" ] || return
    read -r mark pid start <"$1"
    [ "$mark" = "#" ] || return
    alive "$pid" "$start" && return
    run_undo "$(sed -n "1d;/./{G;h};\$!d;x;p" "$1")"
    rm -f "$1"
    echo "recovered $pid"
}

journal=
if [ "$(id -u)" = 0 ]; then
    # A process that ends at this moment may remove the empty directory.
    for try in 1 2 3 4 5 6 7 8 9; do
        mkdir -p "$dir" && [ -O "$dir" ] || continue
        journal="$dir/far-$$.undo"
        echo "# $me" >"$journal" && break
        journal=
    done 2>/dev/null
    # The name stays: this has to find the journals of earlier versions as well.
    for file in "$dir"/far-*.undo; do
        [ -f "$file" ] && [ -O "$file" ] && recover "$file" 8<"$file"
    done
fi
echo "ready $$"

while IFS= read -r line; do
    case $line in
    "U "*)
        # Not echo: some interpret backslashes.
        [ -n "$journal" ] && printf "%s\n" "${line#U }" >>"$journal"
        undo="${line#U }
$undo"
        ;;
    "D "*)
        if text=$(eval "${line#D }" 2>&1 </dev/null); then answer=ok; else answer=no; fi
        printf "%s %s\n" "$answer" "$(printf %s "$text" | tr "\n" " ")"
        ;;
    esac
done
finish
