# shellcheck shell=bash
# The init of a lab host: makes its private directories, then waits.
# Arguments: the host's name for other hosts, and its unique name.
set -eu
name=$1 unique=$2

mount --make-rprivate /
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t tmpfs -o mode=755 tmpfs /run
mount -t tmpfs -o mode=755 tmpfs /var/log
mount -t tmpfs -o mode=755 tmpfs /var/lib

# The tun device, accessible to every user as on a stock Debian.
mount -t tmpfs -o mode=755 tmpfs /dev/net
mknod -m 666 /dev/net/tun c 10 200

# A copy of /etc without the parts that belong to the real machine.
cp -a /etc /run/etc
mount --bind /run/etc /etc
rm -rf /etc/ssh/ssh_host_* /etc/ssh/sshd_config* /etc/ssh/ssh_config.d /etc/sshvpn /etc/resolv.conf
mkdir /etc/ssh/ssh_config.d
echo 'hosts: files' >/etc/nsswitch.conf
printf '127.0.0.1 localhost %s %s\n::1 localhost\n' "$name" "$unique" >/etc/hosts
: >/etc/resolv.conf
sed -i 's,^root:.*,root:x:0:0:root:/run/home/root:/bin/bash,' /etc/passwd
mkdir /run/home /run/lab /run/sshd
mkdir -m 700 /run/home/root /run/home/root/.ssh

hostname "$unique"
ip link set lo up
# No duplicate address detection: these links have no other hosts.
echo 0 >/proc/sys/net/ipv6/conf/default/accept_dad
echo 0 >/proc/sys/net/ipv6/conf/all/accept_dad
echo ready
exec >/dev/null
read -r _ || true
