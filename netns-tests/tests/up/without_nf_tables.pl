# Runs its arguments as on a kernel without nf_tables: sockets of NETLINK_NETFILTER
# do not exist (EPROTONOSUPPORT), by a seccomp filter.
use strict;
use POSIX ();
my $arm = (POSIX::uname())[4] eq "aarch64";
my ($socket, $seccomp) = $arm ? (198, 277) : (41, 317);
my @filter = (
    [0x20, 0, 0, 0],                # the call's number
    [0x15, 0, 5, $socket],
    [0x20, 0, 0, 16],               # its domain
    [0x15, 0, 3, 16],               # AF_NETLINK
    [0x20, 0, 0, 32],               # its protocol
    [0x15, 0, 1, 12],               # NETLINK_NETFILTER
    [0x06, 0, 0, 0x00050000 | 93],  # SECCOMP_RET_ERRNO
    [0x06, 0, 0, 0x7fff0000],       # SECCOMP_RET_ALLOW
);
my $code = join "", map { pack "SCCL", @$_ } @filter;
my $program = pack "S x6 P", scalar @filter, $code;
# SECCOMP_SET_MODE_FILTER, which root may without no_new_privs.
syscall($seccomp, 1, 0, $program) == 0 or die "seccomp: $!\n";
exec @ARGV or die "$ARGV[0]: $!\n";
