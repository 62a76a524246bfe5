//! What processes in a sandbox are and have.

use kiln_runtime::SandboxSpec;

use super::lab::{Lab, privileged, sh, sh_as, spec};

#[test]
fn commands_run_as_root_and_as_users() {
    if !privileged() {
        return;
    }
    let lab = Lab::new();
    lab.sandbox(async |running| {
        let root = sh(running, "id -u; id -g; id -G; cat /proc/1/comm; umask").await;
        assert_eq!(root.ok(), "0\n0\n0\nagent\n0022");
        let user =
            sh_as(running, Some("nobody"), "id -un; touch /tmp/x && stat -c %U /tmp/x").await;
        assert_eq!(user.ok(), "nobody\nnobody");
        let script =
            "useradd -m one && su one -c 'id -un; echo $HOME' && passwd -S one | cut -c1-5";
        assert_eq!(sh(running, script).await.ok(), "one\n/home/one\none L");
        assert_eq!(
            sh(running, "chown 65535:65535 /tmp/x && stat -c %u /tmp/x").await.ok(),
            "65535"
        );
        assert_ne!(sh(running, "chown 65536 /tmp/x").await.code, 0, "ids end at 65535");
    });
}

#[test]
fn the_first_process_is_tidy() {
    if !privileged() {
        return;
    }
    let lab = Lab::new();
    lab.sandbox(async |running| {
        let status = sh(running, "cat /proc/1/status").await.ok();
        let field = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(&format!("{name}:")));
            let line = line.unwrap_or_else(|| panic!("no {name} in {status}"));
            line.split_once(':').unwrap().1.split_whitespace().collect::<Vec<_>>().join(" ")
        };
        assert_eq!(field("Uid"), "0 0 0 0");
        assert_eq!(field("Gid"), "0 0 0 0");
        assert_eq!(field("Groups"), "");
        // chown dac_override fowner fsetid kill setgid setuid setpcap net_bind_service net_raw
        // sys_chroot audit_write setfcap
        let capabilities = "00000000a00425fb";
        for set in ["CapPrm", "CapEff", "CapBnd"] {
            assert_eq!(field(set), capabilities, "{set}");
        }
        assert_eq!(field("CapInh"), "0000000000000000");
        assert_eq!(field("CapAmb"), "0000000000000000");
        assert_eq!((field("NoNewPrivs").as_str(), field("Seccomp").as_str()), ("0", "2"));
        let signals = sh(running, "grep -E 'Sig(Ign|Blk)' /proc/self/status | cut -f2").await;
        assert_eq!(signals.ok(), "0000000000000000\n0000000000000000");
        assert_eq!(sh(running, "cat /proc/1/oom_score_adj").await.ok(), "0");
        assert_eq!(sh(running, "stat -c %u:%g /proc/1/exe /proc/1/fd").await.ok(), "0:0\n0:0");
        let environment = sh(running, "tr '\\0' '\\n' < /proc/1/environ").await.ok();
        assert_eq!(environment, "KILN_TEST=1");
        let ids = "cut -d' ' -f1,5,6 /proc/1/stat; cat /proc/1/cmdline | tr '\\0' ' '";
        assert_eq!(sh(running, ids).await.ok(), "1 1 1\n/sbin/agent --listen-fd 3");
    });
}

#[test]
fn no_descriptor_of_the_host_is_in_a_sandbox() {
    if !privileged() {
        return;
    }
    // A descriptor without close-on-exec, as a careless library might leave one.
    let leak = rustix::io::dup(std::fs::File::open("/etc/passwd").unwrap()).unwrap();
    rustix::io::fcntl_setfd(&leak, rustix::io::FdFlags::empty()).unwrap();
    let lab = Lab::new();
    lab.sandbox(async |running| {
        let list =
            sh(running, "cd /proc/1/fd && for f in *; do echo $f $(readlink $f); done").await;
        let list = list.ok();
        assert!(list.lines().count() >= 4, "{list}");
        for line in list.lines() {
            // A descriptor that was closed while the list was made has no target.
            let Some((number, target)) = line.split_once(' ') else { continue };
            let wanted = match number {
                "0" | "1" | "2" => target == "/dev/null",
                "3" => target.starts_with("socket:"),
                _ => {
                    ["socket:", "anon_inode:", "pipe:"].iter().any(|kind| target.starts_with(kind))
                }
            };
            assert!(wanted, "descriptor {line} in:\n{list}");
        }
    });
    drop(leak);
}

#[test]
fn limits_of_resources_are_set() {
    if !privileged() {
        return;
    }
    let lab = Lab::new();
    lab.sandbox(async |running| {
        let hard = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
        let soft = hard.map_or(65_536, |hard| hard.min(65_536));
        let script = "ulimit -n; ulimit -c; ulimit -Hc; ulimit -s";
        assert_eq!(sh(running, script).await.ok(), format!("{soft}\n0\n0\n8192"));
    });
}

#[test]
fn privileges_can_be_forbidden() {
    if !privileged() {
        return;
    }
    let lab = Lab::with(|config| config.no_new_privs = true);
    lab.sandbox(async |running| {
        assert_eq!(sh(running, "grep NoNewPrivs /proc/1/status | cut -f2").await.ok(), "1");
        let script = "cp /usr/bin/id /tmp/id && chmod 4755 /tmp/id && /tmp/id -u";
        assert_eq!(sh_as(running, Some("nobody"), script).await.ok(), "65534");
    });
}

#[test]
fn threads_and_forks_work_under_the_filter() {
    if !privileged() {
        return;
    }
    let lab = Lab::new();
    let spec = SandboxSpec { network: false, ..spec() };
    lab.sandbox_of(spec, lab.place.disk(), async |running| {
        let script = "perl -e 'my $p = fork; if (!$p) { exit 7 } waitpid $p, 0; print $? >> 8'";
        assert_eq!(sh(running, script).await.ok(), "7");
        let script = "perl -e 'print syscall(435, 0, 0), \" \", $!+0, \" \"; \
            print syscall(248, 0, 0, 0, 0), \" \", $!+0, \" \"; print syscall(999), \" \", $!+0'";
        // clone3: ENOSYS (38), add_key: EPERM (1), a call that does not exist: ENOSYS.
        if cfg!(target_arch = "x86_64") {
            assert_eq!(sh(running, script).await.ok(), "-1 38 -1 1 -1 38");
        }
    });
}
