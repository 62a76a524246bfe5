//! Which control group hierarchies are mounted, out of a `mountinfo` (see proc_pid_mountinfo(5)).

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// A mounted hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Mount {
    /// Version 1, with its controllers (or its name).
    V1 {
        /// Where.
        path: PathBuf,
        /// What the mount's options name.
        controllers: Vec<String>,
    },
    /// Version 2.
    V2 {
        /// Where.
        path: PathBuf,
    },
}

/// The hierarchies at or below `root`, in the order in which they were mounted.
pub(super) fn parse(root: &Path, mountinfo: &str) -> Vec<Mount> {
    mountinfo
        .lines()
        .filter_map(parse_line)
        .filter(|mount| mount.path().starts_with(root))
        .collect()
}

fn parse_line(line: &str) -> Option<Mount> {
    // 36 35 98:0 /root /mount/point rw,noatime [optional ...] - type source super,options
    let (before, after) = line.split_once(" - ")?;
    let path = unescape(before.split(' ').nth(4)?);
    let mut after = after.split(' ');
    match after.next()? {
        "cgroup2" => Some(Mount::V2 { path }),
        "cgroup" => {
            let controllers = after.nth(1)?.split(',').map(str::to_owned).collect();
            Some(Mount::V1 { path, controllers })
        }
        _ => None,
    }
}

impl Mount {
    fn path(&self) -> &Path {
        match self {
            Mount::V1 { path, .. } | Mount::V2 { path } => path,
        }
    }
}

/// Blanks, tabs, line ends and backslashes are there as a backslash and three octal digits.
fn unescape(field: &str) -> PathBuf {
    let mut bytes = Vec::new();
    let mut rest = field.as_bytes();
    while let [first, tail @ ..] = rest {
        let octal = tail.first_chunk::<3>().filter(|_| *first == b'\\').and_then(|digits| {
            let digits = std::str::from_utf8(digits).ok()?;
            u8::from_str_radix(digits, 8).ok()
        });
        bytes.push(octal.unwrap_or(*first));
        rest = if octal.is_some() { &tail[3..] } else { tail };
    }
    OsString::from_vec(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::{Mount, parse};

    const HYBRID: &str = "\
23 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 master:2 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 /docker/ab /sys/fs/cgroup/me\\040mory rw - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate
42 31 0:29 / /elsewhere/cpu rw - cgroup cgroup rw,cpu,cpuacct
nonsense
";

    #[test]
    fn hierarchies_are_found() {
        let v1 = |path: &str, controllers: &[&str]| Mount::V1 {
            path: path.into(),
            controllers: controllers.iter().map(ToString::to_string).collect(),
        };
        let expected = [
            v1("/sys/fs/cgroup/cpu,cpuacct", &["rw", "cpu", "cpuacct"]),
            v1("/sys/fs/cgroup/me mory", &["rw", "memory"]),
            v1("/sys/fs/cgroup/systemd", &["rw", "name=systemd"]),
            Mount::V2 { path: "/sys/fs/cgroup/unified".into() },
        ];
        assert_eq!(parse("/sys/fs/cgroup".as_ref(), HYBRID), expected);
        assert_eq!(parse("/nowhere".as_ref(), HYBRID), []);
    }
}
