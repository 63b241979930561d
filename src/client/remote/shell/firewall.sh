# Prints the rules of this host for forwarded packets, one "key text" per line: those
# of nft in JSON, those of the tables of ip_tables that exist, and the programs.
LC_ALL=C
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
export LC_ALL PATH
# A listing that is longer is judged as far as it goes.
most=1000000
# variant PROGRAM: the part of the kernel that it changes; before 1.8 it was ip_tables.
variant() {
    case $("$1" --version 2>/dev/null) in
    *nf_tables*) echo nft ;;
    *\ v[0-9]*) echo legacy ;;
    esac
}
tables() { cat "/proc/net/$1_names" 2>/dev/null; }

json=$(nft -j -t list ruleset 2>/dev/null || nft -j list ruleset 2>/dev/null)
[ -n "$json" ] && printf "%s\n" "$json" | tr -d "\n" | head -c "$most" | sed "s/^/json /" && echo
for family in 4 6; do
    case $family in 4) name=iptables known=ip_tables ;; *) name=ip6tables known=ip6_tables ;; esac
    nft=''
    legacy=''
    for program in "$name" "$name-nft" "$name-legacy"; do
        command -v "$program" >/dev/null || continue
        case $(variant "$program") in
        nft) nft=${nft:-$program} ;;
        legacy) legacy=${legacy:-$program} ;;
        esac
    done
    [ -n "$nft" ] && echo "program nft $family $nft"
    [ -n "$legacy" ] && echo "program legacy $family $legacy"
    [ -z "$json" ] && [ -n "$nft" ] && "$nft" -w -S 2>/dev/null | head -c "$most" | sed "s/^/rule nft $family filter /"
    # Listing a table would make it.
    for table in filter mangle; do
        [ -n "$legacy" ] || continue
        tables "$known" | grep -qx "$table" || continue
        "$legacy" -w -t "$table" -S 2>/dev/null | head -c "$most" | sed "s/^/rule legacy $family $table /"
    done
done
echo end
