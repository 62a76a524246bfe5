/*
 * What a hostile root tries from inside of a sandbox, one system call after the other.
 *
 * With `open PATH [SECONDS]` it opens a path as often as it can, and holds what it has.
 *
 * Else it prints a line for each attempt: its name, a tab, and `refused E` with the number of the error, or
 * `DONE`. What each line must say is decided by the suite that runs this, not here. Every attempt is a
 * process of its own, so that one that is killed, or changes what it is, does not spoil the next.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/klog.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/swap.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/time.h>
#include <sys/timex.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>

#ifndef SYS_clone3
#define SYS_clone3 435
#endif
#define SYS_OPEN_TREE 428
#define SYS_MOVE_MOUNT 429
#define SYS_FSOPEN 430
#define SYS_FSPICK 433
#define SYS_MOUNT_SETATTR 442
#define SYS_IO_URING_SETUP 425

/* Zero for success, else the error. */
typedef int attempt(void);

static int result(long answer) { return answer < 0 ? errno : 0; }

static int write_to(const char *path, const char *text) {
    int file = open(path, O_WRONLY | O_CLOEXEC);
    if (file < 0) return errno;
    int error = result(write(file, text, strlen(text)));
    close(file);
    return error;
}

/* Mounts. */
static int mount_tmpfs(void) { return result(mount("none", "/mnt", "tmpfs", 0, "")); }
static int mount_proc(void) { return result(mount("none", "/mnt", "proc", 0, "")); }
static int mount_sysfs(void) { return result(mount("none", "/mnt", "sysfs", 0, "")); }
static int mount_cgroup(void) { return result(mount("none", "/mnt", "cgroup", 0, "memory")); }
static int mount_cgroup2(void) { return result(mount("none", "/mnt", "cgroup2", 0, "")); }
static int mount_devtmpfs(void) { return result(mount("none", "/mnt", "devtmpfs", 0, "")); }
static int mount_overlay(void) {
    return result(mount("none", "/mnt", "overlay", 0, "lowerdir=/etc:/usr"));
}
static int remount_root_with_devices(void) {
    return result(mount("none", "/", NULL, MS_REMOUNT | MS_BIND, NULL));
}
static int remount_sys_writable(void) {
    return result(mount("none", "/sys", NULL, MS_REMOUNT | MS_BIND, NULL));
}
static int remount_proc_sys_writable(void) {
    return result(mount("none", "/proc/sys", NULL, MS_REMOUNT | MS_BIND, NULL));
}
static int bind_over_a_mask(void) {
    return result(mount("/tmp", "/proc/kcore", NULL, MS_BIND, NULL));
}
static int unmount_a_mask(void) { return result(umount2("/proc/kcore", MNT_DETACH)); }
static int unmount_proc(void) { return result(umount2("/proc", MNT_DETACH)); }
static int unmount_agent(void) { return result(umount2("/sbin/agent", MNT_DETACH)); }
static int pivot_the_root(void) { return result(syscall(SYS_pivot_root, ".", ".")); }
static int open_tree_clone(void) { return result(syscall(SYS_OPEN_TREE, AT_FDCWD, "/", 1)); }
static int open_a_filesystem(void) { return result(syscall(SYS_FSOPEN, "tmpfs", 0)); }
static int pick_a_filesystem(void) { return result(syscall(SYS_FSPICK, AT_FDCWD, "/", 0)); }
static int move_a_mount(void) {
    return result(syscall(SYS_MOVE_MOUNT, AT_FDCWD, "/dev/shm", AT_FDCWD, "/mnt", 0));
}
static int change_mount_attributes(void) {
    uint64_t attributes[4] = {0, 4 /* nodev */, 0, 0};
    return result(syscall(SYS_MOUNT_SETATTR, AT_FDCWD, "/", 0, attributes, sizeof attributes));
}

/* Namespaces. */
static int unshare_user(void) { return result(unshare(CLONE_NEWUSER)); }
static int unshare_mount(void) { return result(unshare(CLONE_NEWNS)); }
static int unshare_net(void) { return result(unshare(CLONE_NEWNET)); }
static int unshare_cgroup(void) { return result(unshare(CLONE_NEWCGROUP)); }
static int unshare_pid(void) { return result(unshare(CLONE_NEWPID)); }
static int clone_user(void) {
    long child = syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0);
    if (child == 0) _exit(0);
    return result(child);
}
static int clone3_user(void) {
    uint64_t arguments[8] = {CLONE_NEWUSER, 0, 0, 0, SIGCHLD, 0, 0, 0};
    long child = syscall(SYS_clone3, arguments, sizeof arguments);
    if (child == 0) _exit(0);
    return result(child);
}
static int enter_namespace_of_pid_1(void) {
    int file = open("/proc/1/ns/mnt", O_RDONLY);
    return file < 0 ? errno : result(setns(file, CLONE_NEWNS));
}

/* Devices and the kernel. */
static int make_char_device(void) { return result(mknod("/tmp/mem", S_IFCHR | 0666, makedev(1, 1))); }
static int make_block_device(void) { return result(mknod("/tmp/disk", S_IFBLK | 0666, makedev(254, 0))); }
static int make_whiteout(void) { return result(mknod("/tmp/gone", S_IFCHR, 0)); }
static int load_module(void) { return result(syscall(SYS_init_module, "x", 1UL, "")); }
static int load_module_file(void) { return result(syscall(SYS_finit_module, 0, "", 0)); }
static int remove_module(void) { return result(syscall(SYS_delete_module, "ext4", 0)); }
static int load_kernel(void) { return result(syscall(SYS_kexec_load, 0UL, 0UL, 0UL, 0UL)); }
static int reboot_the_host(void) { return result(syscall(SYS_reboot, 0xfee1dead, 0x28121969, 0x01234567, 0)); }
static int load_bpf(void) {
    char attributes[128] = {1, 0, 0, 0, 4, 0, 0, 0, 4, 0, 0, 0, 1, 0, 0, 0};
    return result(syscall(SYS_bpf, 0, attributes, sizeof attributes));
}
static int open_performance_event(void) {
    char attributes[128] = {0};
    attributes[4] = 112;
    return result(syscall(SYS_perf_event_open, attributes, 0, -1, -1, 0));
}
static int open_userfaultfd(void) { return result(syscall(SYS_userfaultfd, 0)); }
static int open_io_uring(void) {
    char parameters[256] = {0};
    return result(syscall(SYS_IO_URING_SETUP, 4, parameters));
}
static int add_a_key(void) { return result(syscall(SYS_add_key, "user", "a", "b", 1UL, -4)); }
static int ask_for_a_key(void) { return result(syscall(SYS_request_key, "user", "a", "b", -4)); }
static int describe_session_keyring(void) {
    char text[256];
    return result(syscall(SYS_keyctl, 6, -3, text, sizeof text));
}
static int read_kernel_log(void) {
    char text[64];
    return result(klogctl(3, text, sizeof text));
}
static int raise_io_privilege(void) {
#ifdef SYS_iopl
    return result(syscall(SYS_iopl, 3));
#else
    return ENOSYS;
#endif
}
static int swap_on(void) { return result(swapon("/tmp", 0)); }
static int account_processes(void) { return result(syscall(SYS_acct, "/tmp/accounts")); }
static int ask_for_quota(void) { return result(syscall(SYS_quotactl, 0x800001 << 8, "/dev/vda", 0, 0)); }
static int set_the_clock(void) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    now.tv_sec += 3600;
    return result(clock_settime(CLOCK_REALTIME, &now));
}
static int set_the_time_of_day(void) {
    struct timeval now;
    gettimeofday(&now, NULL);
    now.tv_sec += 3600;
    return result(settimeofday(&now, NULL));
}
static int adjust_the_clock(void) {
    struct timex change = {.modes = ADJ_OFFSET, .offset = 1000000};
    return result(adjtimex(&change));
}
static int rename_the_host(void) { return result(sethostname("taken", 5)); }
static int hang_up_the_terminal(void) { return result(syscall(SYS_vhangup)); }

/* Files, by ways around their names. */
static int open_by_handle(void) {
    struct { unsigned bytes; int type; uint64_t inode; } handle = {8, 1, 2};
    int root = open("/", O_RDONLY);
    return root < 0 ? errno : result(syscall(SYS_open_by_handle_at, root, &handle, O_RDONLY));
}
static int set_trusted_attribute(void) {
    return result(syscall(SYS_setxattr, "/tmp", "trusted.overlay.opaque", "y", 1UL, 0));
}
static int own_by_an_id_outside(void) {
    int file = open("/tmp/owned", O_CREAT | O_RDWR, 0600);
    return file < 0 ? errno : result(fchown(file, 70000, 70000));
}
/* A program that runs cannot be opened for writing; what counts is whether it could, once it does not. */
static int write_to_program(const char *path) {
    int file = open(path, O_WRONLY);
    return file < 0 && errno == ETXTBSY ? result(access(path, W_OK)) : result(file);
}
static int write_the_agent(void) { return write_to_program("/sbin/agent"); }
static int write_the_agent_through_proc(void) { return write_to_program("/proc/1/exe"); }
static int replace_the_agent(void) {
    int file = open("/tmp/other", O_CREAT | O_RDWR, 0755);
    close(file);
    return result(rename("/tmp/other", "/sbin/agent"));
}
static int remove_the_agent(void) { return result(unlink("/sbin/agent")); }
/* Up from a root that is not this process's own: must end at the sandbox's root, or where nothing is (below
   the root of gVisor's own kernel there is an empty one). */
static int leave_by_chroot(void) {
    struct stat mine, found;
    if (stat("/", &mine)) return errno;
    mkdir("/tmp/cell", 0755);
    int outside = open("/", O_RDONLY | O_DIRECTORY);
    if (chroot("/tmp/cell") || fchdir(outside)) return errno;
    for (int up = 0; up < 64; up++)
        if (chdir("..")) return errno;
    if (chroot(".") || stat("/", &found)) return errno;
    if (found.st_dev == mine.st_dev && found.st_ino == mine.st_ino) return EXDEV;
    DIR *top = opendir("/");
    for (struct dirent *entry; top && (entry = readdir(top));)
        if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, "..")) return 0;
    return EXDEV;
}

/* Kernel settings. */
static int set_core_pattern(void) { return write_to("/proc/sys/kernel/core_pattern", "|/tmp/x"); }
static int set_modprobe(void) { return write_to("/proc/sys/kernel/modprobe", "/tmp/x"); }
static int set_panic(void) { return write_to("/proc/sys/kernel/panic_on_oops", "1"); }
static int set_forwarding(void) { return write_to("/proc/sys/net/ipv4/ip_forward", "1"); }
static int press_sysrq(void) { return write_to("/proc/sysrq-trigger", "h"); }
static int register_binary_format(void) {
    return write_to("/proc/sys/fs/binfmt_misc/register", ":x:E::x::/tmp/x:");
}
static int set_uevent_helper(void) { return write_to("/sys/kernel/uevent_helper", "/tmp/x"); }
static int drop_caches(void) { return write_to("/proc/sys/vm/drop_caches", "1"); }
static int turn_a_cpu_off(void) { return write_to("/sys/devices/system/cpu/cpu1/online", "0"); }
static int set_release_agent(void) {
    return write_to("/sys/fs/cgroup/memory/release_agent", "/tmp/x");
}
static int widen_own_id_map(void) { return write_to("/proc/self/uid_map", "0 0 4294967295"); }
static int lower_oom_score(void) { return write_to("/proc/self/oom_score_adj", "-1000"); }
static int read_kernel_memory(void) {
    char byte;
    int file = open("/proc/kcore", O_RDONLY);
    if (file < 0) return errno;
    long length = read(file, &byte, 1);
    return length == 0 ? ENODATA : result(length);
}
static int read_memory_device(void) { return result(open("/dev/mem", O_RDONLY)); }
static int read_kernel_messages(void) {
    char byte;
    int file = open("/dev/kmsg", O_RDONLY | O_NONBLOCK);
    if (file < 0) return errno;
    long length = read(file, &byte, 1);
    return length == 0 ? ENODATA : result(length);
}

/* Processes: the parent of PID 1 is outside, and must not be there to be named. */
static int signal_outside(void) {
    for (int pid = 2; pid < 4; pid++)
        if (kill(pid, 0) == 0 && getpgid(pid) == 0) return 0;
    return ESRCH;
}

/* Network. */
static int socket_of_vsock(void) { return result(socket(40, SOCK_STREAM, 0)); }
static int socket_of_alg(void) { return result(socket(AF_ALG, SOCK_SEQPACKET, 0)); }
static int bring_a_link_down(void) {
    struct { struct nlmsghdr head; struct ifinfomsg link; } request = {
        {sizeof request, RTM_NEWLINK, NLM_F_REQUEST | NLM_F_ACK, 1, 0},
        {.ifi_family = AF_UNSPEC, .ifi_index = 1, .ifi_change = 1},
    };
    struct { struct nlmsghdr head; struct nlmsgerr error; char rest[512]; } answer;
    int socket_ = socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE);
    if (socket_ < 0 || send(socket_, &request, sizeof request, 0) < 0) return errno;
    if (recv(socket_, &answer, sizeof answer, 0) < 0) return errno;
    return answer.head.nlmsg_type == NLMSG_ERROR ? -answer.error.error : 0;
}
static int socket_of_netfilter(void) {
    struct { struct nlmsghdr head; char body[4]; } request = {
        {sizeof request, (10 << 8) | 0, NLM_F_REQUEST | NLM_F_ACK, 1, 0}, {2, 0, 0, 0},
    };
    struct { struct nlmsghdr head; struct nlmsgerr error; char rest[512]; } answer;
    int socket_ = socket(AF_NETLINK, SOCK_RAW, NETLINK_NETFILTER);
    if (socket_ < 0 || send(socket_, &request, sizeof request, 0) < 0) return errno;
    if (recv(socket_, &answer, sizeof answer, 0) < 0) return errno;
    return answer.head.nlmsg_type == NLMSG_ERROR ? -answer.error.error : 0;
}

#define A(name) {#name, name}
static const struct { const char *name; attempt *call; } attempts[] = {
    A(mount_tmpfs), A(mount_proc), A(mount_sysfs), A(mount_cgroup), A(mount_cgroup2),
    A(mount_devtmpfs), A(mount_overlay), A(remount_root_with_devices), A(remount_sys_writable),
    A(remount_proc_sys_writable), A(bind_over_a_mask), A(unmount_a_mask), A(unmount_proc),
    A(unmount_agent), A(pivot_the_root), A(open_tree_clone), A(open_a_filesystem),
    A(pick_a_filesystem), A(move_a_mount), A(change_mount_attributes), A(unshare_user),
    A(unshare_mount), A(unshare_net), A(unshare_cgroup), A(unshare_pid), A(clone_user),
    A(clone3_user), A(enter_namespace_of_pid_1), A(make_char_device), A(make_block_device),
    A(make_whiteout), A(load_module), A(load_module_file), A(remove_module), A(load_kernel),
    A(reboot_the_host), A(load_bpf), A(open_performance_event), A(open_userfaultfd),
    A(open_io_uring), A(add_a_key), A(ask_for_a_key), A(describe_session_keyring),
    A(read_kernel_log), A(raise_io_privilege), A(swap_on), A(account_processes), A(ask_for_quota),
    A(set_the_clock), A(set_the_time_of_day), A(adjust_the_clock), A(rename_the_host),
    A(hang_up_the_terminal), A(open_by_handle), A(set_trusted_attribute), A(own_by_an_id_outside),
    A(write_the_agent), A(write_the_agent_through_proc), A(replace_the_agent), A(remove_the_agent),
    A(leave_by_chroot), A(set_core_pattern), A(set_modprobe), A(set_panic), A(set_forwarding),
    A(press_sysrq), A(register_binary_format), A(set_uevent_helper), A(drop_caches),
    A(turn_a_cpu_off), A(set_release_agent), A(widen_own_id_map), A(lower_oom_score),
    A(read_kernel_memory), A(read_memory_device), A(read_kernel_messages), A(signal_outside),
    A(socket_of_vsock), A(socket_of_alg), A(bring_a_link_down), A(socket_of_netfilter),
};

/* Opens `path` until it is refused, and says how often that went well. */
static int open_often(const char *path, const char *seconds) {
    int count = 0;
    while (open(path, O_RDWR | O_NOCTTY) >= 0) count++;
    printf("%d\n", count);
    fflush(stdout);
    sleep(seconds ? atoi(seconds) : 0);
    return 0;
}

int main(int argc, char **argv) {
    if (argc >= 3 && !strcmp(argv[1], "open")) return open_often(argv[2], argv[3]);
    for (size_t at = 0; at < sizeof attempts / sizeof *attempts; at++) {
        fflush(stdout);
        pid_t child = fork();
        if (child == 0) {
            alarm(10);
            errno = 0;
            _exit(attempts[at].call() & 0xff);
        }
        int status = 0;
        if (child < 0 || waitpid(child, &status, 0) < 0) {
            printf("%s\tnot tried %d\n", attempts[at].name, errno);
        } else if (WIFSIGNALED(status)) {
            printf("%s\tkilled %d\n", attempts[at].name, WTERMSIG(status));
        } else if (WEXITSTATUS(status) == 0) {
            printf("%s\tDONE\n", attempts[at].name);
        } else {
            printf("%s\trefused %d\n", attempts[at].name, WEXITSTATUS(status));
        }
    }
    return 0;
}
