# shellcheck shell=bash
# Prints, in sections, all state of a host that a VPN client may change and that
# does not change by itself.
section() { echo "== $1"; shift; "$@" 2>/dev/null; }
section 'address' ip -d address
section 'IPv4 route' ip -4 route show table all
section 'IPv6 route' ip -6 route show table all
section 'IPv4 rule' ip -4 rule
section 'IPv6 rule' ip -6 rule
section 'IPv4 setting' grep -rs . /proc/sys/net/ipv4/conf /proc/sys/net/ipv4/ip_forward
section 'IPv6 setting' grep -rs . /proc/sys/net/ipv6/conf
section 'nftables' nft -s list ruleset
for tool in iptables-nft-save ip6tables-nft-save iptables-legacy-save ip6tables-legacy-save; do
    # Remove comments, which contain the time, and the packet counters of chains.
    section "$tool" "$tool" | sed '/^#/d; s/ \[[0-9]*:[0-9]*\]$//'
done
section '/run/sshvpn' find /run/sshvpn -mindepth 1
section '/etc' find /etc -printf '%p %T@ %m %u %s\n'
section 'resolv.conf' cat /etc/resolv.conf
