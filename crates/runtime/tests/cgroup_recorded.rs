//! Control groups against recorded trees: plain files that keep what is written into them.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use kiln_runtime::Limits;
use kiln_runtime::cgroup::{CgroupError, Group, Hierarchy, Mode};

const LIMITS: Limits = Limits { vcpu: 2, memory: 64 << 20, pids: 100 };
const WAIT: Duration = Duration::from_millis(50);

struct Tree(tempfile::TempDir);

impl Tree {
    fn new(files: &[(&str, &str)]) -> Tree {
        let tree = Tree(tempfile::tempdir().unwrap());
        tree.add(files);
        tree
    }

    fn add(&self, files: &[(&str, &str)]) {
        for (path, content) in files {
            let path = self.path(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.path(path)).unwrap()
    }

    fn detect(&self, mounts: &[(&str, &str)]) -> Result<Hierarchy, CgroupError> {
        let root = self.0.path().display();
        let line = |(path, kind): &(&str, &str)| {
            let kind = kind.split_once(' ').unwrap_or((kind, ""));
            format!("30 20 0:29 / {root}{path} rw,nosuid - {} none rw,{}\n", kind.0, kind.1)
        };
        Hierarchy::detect(self.0.path(), &mounts.iter().map(line).collect::<String>())
    }
}

/// A version 2 tree, as the kernel would have made it.
fn version_2() -> Tree {
    Tree::new(&[
        ("cgroup.controllers", "cpuset cpu io memory hugetlb pids rdma\n"),
        ("cgroup.subtree_control", "memory\n"),
        ("cgroup.procs", "1\n"),
        ("kiln-3/cgroup.subtree_control", ""),
    ])
}

/// The control files of a group, which a plain directory does not have of itself.
const GROUP: [(&str, &str); 11] = [
    ("kiln-3/sbx/cgroup.procs", ""),
    ("kiln-3/sbx/cgroup.events", "populated 0\nfrozen 0\n"),
    ("kiln-3/sbx/cgroup.freeze", "0"),
    ("kiln-3/sbx/cgroup.kill", ""),
    ("kiln-3/sbx/memory.max", ""),
    ("kiln-3/sbx/memory.swap.max", ""),
    ("kiln-3/sbx/memory.current", "4096\n"),
    ("kiln-3/sbx/memory.events", "low 0\nhigh 0\nmax 7\noom 3\noom_kill 2\noom_group_kill 0\n"),
    ("kiln-3/sbx/pids.max", ""),
    ("kiln-3/sbx/cpu.max", ""),
    ("kiln-3/sbx/cpu.stat", "usage_usec 1\n"),
];

#[test]
fn version_2_holds_everything_in_one_group() {
    let tree = version_2();
    let hierarchy = tree.detect(&[("", "cgroup2")]).unwrap();
    assert_eq!(hierarchy.mode(), Mode::V2);
    let group = Group::create(&hierarchy, "kiln-3", "sbx").unwrap();
    assert!(tree.path("kiln-3/sbx").is_dir());
    assert_eq!(tree.read("kiln-3/cgroup.subtree_control"), "+cpu +memory +pids");
    // What was enabled is not enabled again; the file keeps what is written over its beginning.
    assert!(tree.read("cgroup.subtree_control").starts_with("+cpu +pids"));

    tree.add(&GROUP);
    group.set_limits(&LIMITS).unwrap();
    group.add_process(4711).unwrap();
    let written = [
        ("memory.max", "67108864"),
        ("memory.swap.max", "0"),
        ("pids.max", "100"),
        ("cpu.max", "200000 100000"),
        ("cgroup.procs", "4711"),
    ];
    for (file, expected) in written {
        assert_eq!(tree.read(&format!("kiln-3/sbx/{file}")), expected, "{file}");
    }
    assert_eq!(group.memory_usage().unwrap(), 4096);
    assert_eq!(group.oom_kills().unwrap(), 2);
    assert_eq!(group.pids().unwrap(), [4711]);
    assert!(group.v2_dir().unwrap().is_some());
    assert_eq!(hierarchy.list("kiln-3").unwrap(), ["sbx"]);
}

#[test]
fn version_2_freezes_until_the_kernel_says_so() {
    let tree = version_2();
    let hierarchy = tree.detect(&[("", "cgroup2")]).unwrap();
    let group = Group::create(&hierarchy, "kiln-3", "sbx").unwrap();
    tree.add(&GROUP);
    // Nobody answers here: it is told to run on, and the caller that it did not work.
    let error = group.freeze(WAIT).unwrap_err();
    assert!(matches!(error, CgroupError::Timeout { state: "frozen", .. }), "{error}");
    assert_eq!(tree.read("kiln-3/sbx/cgroup.freeze"), "0");

    tree.add(&[("kiln-3/sbx/cgroup.events", "populated 1\nfrozen 1\n")]);
    group.freeze(WAIT).unwrap();
    assert_eq!(tree.read("kiln-3/sbx/cgroup.freeze"), "1");
    assert!(matches!(group.thaw(WAIT), Err(CgroupError::Timeout { state: "thawed", .. })));

    group.kill().unwrap();
    assert_eq!(tree.read("kiln-3/sbx/cgroup.kill"), "1");
    let error = group.wait_empty(WAIT).unwrap_err();
    assert!(matches!(error, CgroupError::Timeout { state: "empty", .. }), "{error}");
}

#[test]
fn hosts_are_told_apart() {
    let old: &[(&str, &str)] = &[
        ("/cpu,cpuacct", "cgroup cpu,cpuacct"),
        ("/memory", "cgroup memory"),
        ("/pids", "cgroup pids"),
        ("/systemd", "cgroup name=systemd"),
    ];
    let unified = ("/unified", "cgroup2");
    type Case<'a> = (&'a str, Vec<(&'a str, &'a str)>, &'a str, Result<Mode, &'a str>);
    let cases: [Case<'_>; 6] = [
        ("hybrid", [old, &[unified]].concat(), "hugetlb", Ok(Mode::Hybrid)),
        ("old", old.to_vec(), "", Ok(Mode::V1)),
        ("new", vec![unified], "cpu io memory pids", Ok(Mode::V2)),
        ("mixed", [&old[..2], &[unified]].concat(), "pids", Ok(Mode::Hybrid)),
        ("memory switched off", vec![unified], "cpu io pids", Err("memory")),
        ("nothing", vec![], "", Err("cpu")),
    ];
    for (name, mounts, controllers, expected) in cases {
        let tree = Tree::new(&[("unified/cgroup.controllers", controllers)]);
        match (tree.detect(&mounts), expected) {
            (Ok(hierarchy), Ok(mode)) => assert_eq!(hierarchy.mode(), mode, "{name}"),
            (Err(error), Err(missing)) => {
                let text = error.to_string();
                assert!(text.contains(&format!("`{missing}`")), "{name}: {text}");
            }
            (found, _) => panic!("{name}: {found:?}"),
        }
    }
}

#[test]
fn mixed_hosts_write_each_limit_where_its_controller_is() {
    let tree = Tree::new(&[
        ("unified/cgroup.controllers", "pids\n"),
        ("unified/cgroup.subtree_control", "\n"),
        ("unified/kiln-0/cgroup.subtree_control", ""),
    ]);
    for directory in ["cpu,cpuacct", "memory"] {
        fs::create_dir_all(tree.path(directory)).unwrap();
    }
    let mounts = [
        ("/cpu,cpuacct", "cgroup cpu,cpuacct"),
        ("/memory", "cgroup memory"),
        ("/unified", "cgroup2"),
    ];
    let group = Group::create(&tree.detect(&mounts).unwrap(), "kiln-0", "a").unwrap();
    assert_eq!(tree.read("unified/kiln-0/cgroup.subtree_control"), "+pids");
    tree.add(&[
        ("unified/kiln-0/a/pids.max", ""),
        ("unified/kiln-0/a/cgroup.procs", ""),
        ("memory/kiln-0/a/memory.limit_in_bytes", ""),
        ("memory/kiln-0/a/memory.memsw.limit_in_bytes", "9223372036854771712\n"),
        ("memory/kiln-0/a/memory.usage_in_bytes", "17\n"),
        ("memory/kiln-0/a/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 5\n"),
        ("memory/kiln-0/a/cgroup.procs", ""),
        ("cpu,cpuacct/kiln-0/a/cpu.cfs_quota_us", ""),
        ("cpu,cpuacct/kiln-0/a/cpu.cfs_period_us", ""),
        ("cpu,cpuacct/kiln-0/a/cgroup.procs", ""),
    ]);
    group.set_limits(&LIMITS).unwrap();
    group.add_process(12).unwrap();
    let written = [
        ("unified/kiln-0/a/pids.max", "100"),
        ("memory/kiln-0/a/memory.limit_in_bytes", "67108864"),
        ("cpu,cpuacct/kiln-0/a/cpu.cfs_quota_us", "200000"),
        ("cpu,cpuacct/kiln-0/a/cpu.cfs_period_us", "100000"),
        ("unified/kiln-0/a/cgroup.procs", "12"),
        ("memory/kiln-0/a/cgroup.procs", "12"),
        ("cpu,cpuacct/kiln-0/a/cgroup.procs", "12"),
    ];
    for (file, expected) in written {
        assert_eq!(tree.read(file), expected, "{file}");
    }
    assert!(tree.read("memory/kiln-0/a/memory.memsw.limit_in_bytes").starts_with("67108864"));
    assert_eq!((group.memory_usage().unwrap(), group.oom_kills().unwrap()), (17, 5));
    // Nothing here can freeze.
    assert!(matches!(group.freeze(WAIT), Err(CgroupError::NoFreezer { .. })));
}

#[test]
fn nothing_half_made_stays() {
    // The second hierarchy is not really there.
    let tree = Tree::new(&[("memory/x", "")]);
    let mounts = [("/memory", "cgroup memory"), ("/rest", "cgroup cpu,pids")];
    let hierarchy = tree.detect(&mounts).unwrap();
    let error = Group::create(&hierarchy, "kiln-0", "a").unwrap_err();
    let text = error.to_string();
    assert!(text.contains(&tree.path("rest/kiln-0").display().to_string()), "{text}");
    assert!(!tree.path("memory/kiln-0/a").exists());
}
