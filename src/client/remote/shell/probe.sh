# Prints facts about this host, one "key value" per line. The arguments are
# addresses whose route is wanted.
LC_ALL=C
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
export LC_ALL PATH
echo "system $(uname -s)"
echo "uid $(id -u)"
echo "login $(id -un)"
as_root=
if [ "$(id -u)" != 0 ]; then
    if ! command -v sudo >/dev/null; then
        echo "sudo missing"
        as_root=false
    elif sudo -n true 2>/dev/null; then
        echo "sudo yes"
        as_root="sudo -n env PATH=$PATH"
    else
        echo "sudo denied"
        as_root=false
    fi
fi
command -v ip >/dev/null && echo "ip yes"
[ -c /dev/net/tun ] && echo "tun yes"
ipv6=/proc/sys/net/ipv6/conf
[ "$(cat $ipv6/all/disable_ipv6 $ipv6/default/disable_ipv6 2>/dev/null | tr -d "\n")" = 00 ] && echo "ipv6 yes"
command -v nft >/dev/null && echo "nft yes"
command -v iptables >/dev/null && echo "iptables yes"
command -v ip6tables >/dev/null && echo "ip6tables yes"
[ "$($as_root iptables -w -S FORWARD 2>/dev/null | head -n 1)" = "-P FORWARD DROP" ] && echo "forward_drop 4"
[ "$($as_root ip6tables -w -S FORWARD 2>/dev/null | head -n 1)" = "-P FORWARD DROP" ] && echo "forward_drop 6"
for device in /sys/class/net/*; do
    [ -e "$device/tun_flags" ] || continue
    echo "device ${device##*/} $(cat "$device/tun_flags") $(cat "$device/owner") $(cat "$device/mtu") $(cat "$device/flags") $(cat "$device/netdev_group") $(cat "$ipv6/${device##*/}/disable_ipv6" 2>/dev/null)"
done
ip -o addr show 2>/dev/null | while read -r index name family address rest; do
    case $rest in "peer "*) peer=${rest#peer }; echo "address $name $address ${peer%% *}" ;; *) echo "address $name $address" ;; esac
done
{ ip route show table all; ip -6 route show table all; } 2>/dev/null | while read -r network rest; do
    case $network in [0-9a-f]*[.:]*) echo "route $network" ;; esac
done
ip -6 route show proto ra 2>/dev/null | while read -r line; do
    name=${line##* dev }
    name=${name%% *}
    # With accept_ra 0, a program handles advertisements, or they are ignored.
    [ "$name" != "$line" ] && [ "$(cat "/proc/sys/net/ipv6/conf/$name/accept_ra" 2>/dev/null)" != 0 ] && echo "advertised $name"
done
for address in "$@"; do
    line=$(ip -o route get "$address" 2>/dev/null | head -n 1)
    name=${line##* dev }
    [ -n "$line" ] && [ "$name" != "$line" ] && echo "way $address ${name%% *}"
done
echo "end"
