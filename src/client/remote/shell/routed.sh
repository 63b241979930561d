# Prints the routes of table main of this host, one "routed NETWORK" per line. The other end of a
# tunnel device is no network.
LC_ALL=C
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
export LC_ALL PATH
{ ip route show; ip -6 route show; } 2>/dev/null | while read -r network rest; do
    case $network in [0-9a-f]*[.:]*) ;; *) continue ;; esac
    case $network in
    */*) ;;
    *)
        name=${rest##*dev }
        [ -e "/sys/class/net/${name%% *}/tun_flags" ] && continue
        ;;
    esac
    echo "routed $network"
done
echo "end"
