//! Real control groups and the processes that tests put into them.

use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use kiln_runtime::Limits;
use kiln_runtime::cgroup::{Group, Hierarchy, Mode};

/// How long something that should happen may take on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// Where control groups are mounted.
pub(crate) const ROOT: &str = "/sys/fs/cgroup";
/// Limits that do not get in the way.
pub(crate) const AMPLE: Limits = Limits { vcpu: 8, memory: 1 << 30, pids: 1000 };

/// This host's hierarchies, and those that it would have without its version 2 mount where that leaves
/// all controllers. None, with a word why, when groups cannot be made.
pub(crate) fn hierarchies() -> Vec<Hierarchy> {
    if !rustix::process::geteuid().is_root() {
        println!("SKIP control groups need root");
        return Vec::new();
    }
    let mountinfo = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let all = Hierarchy::detect(Path::new(ROOT), &mountinfo).unwrap();
    let old: Vec<_> = mountinfo.lines().filter(|line| !line.contains(" - cgroup2 ")).collect();
    let old = Hierarchy::detect(Path::new(ROOT), &old.join("\n")).ok();
    let found: Vec<_> = std::iter::once(all).chain(old).collect();
    for hierarchy in &found {
        println!("running with {:?}", hierarchy.mode());
    }
    found
}

/// A group of a test's own, with its processes; all of it goes when it is dropped.
pub(crate) struct Lab {
    pub(crate) hierarchy: Hierarchy,
    pub(crate) parent: String,
    pub(crate) group: Group,
    children: Vec<Child>,
}

impl Lab {
    pub(crate) fn new(hierarchy: &Hierarchy, name: &str, limits: Limits) -> Lab {
        let hierarchy = hierarchy.clone();
        let mode = if hierarchy.mode() == Mode::V1 { "old" } else { "new" };
        let parent = format!("kiln-test-{}-{name}-{mode}", std::process::id());
        let group = Group::create(&hierarchy, &parent, "sandbox").unwrap();
        group.set_limits(&limits).unwrap();
        Lab { hierarchy, parent, group, children: Vec::new() }
    }

    /// Runs a shell script that is in the group before it begins.
    pub(crate) fn run(&mut self, script: &str) -> &mut Child {
        let script = format!("read go; {script}");
        let mut command = Command::new("sh");
        command.args(["-c", &script]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        self.group.add_process(child.id()).unwrap();
        child.stdin.take().unwrap().write_all(b"go\n").unwrap();
        self.children.push(child);
        self.children.last_mut().unwrap()
    }

    /// Runs a script to its end; gives what it wrote.
    pub(crate) fn output(&mut self, script: &str) -> String {
        self.run(script);
        let output = self.children.pop().unwrap().wait_with_output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        String::from_utf8_lossy(&text).into_owned()
    }

    /// Reaps what was killed.
    pub(crate) fn reap(&mut self) {
        for mut child in self.children.drain(..) {
            child.wait().unwrap();
        }
    }

    /// Whether anything of a name is left in any hierarchy.
    pub(crate) fn exists(&self, name: &str) -> bool {
        self.hierarchy.list(&self.parent).unwrap().iter().any(|other| other == name)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let cleaned = self
            .group
            .kill()
            .and_then(|()| self.group.wait_empty(PATIENCE))
            .and_then(|()| self.group.remove(PATIENCE))
            .and_then(|()| self.hierarchy.remove_parent(&self.parent));
        for child in &mut self.children {
            let _ = child.wait();
        }
        if !std::thread::panicking() {
            cleaned.unwrap();
        }
    }
}

/// Waits for something that comes about by itself.
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
