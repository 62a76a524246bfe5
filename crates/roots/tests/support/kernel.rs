//! What the tests of mounts need from the host: layers, and a user namespace.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use kiln_layer::{Limits, read_tar_file, write_index};
use kiln_roots::LayerSource;

/// Whether this process may mount; says why not.
pub(crate) fn probe() -> bool {
    if !rustix::process::geteuid().is_root() {
        println!("SKIP mounting needs root");
        return false;
    }
    let filesystems = fs::read_to_string("/proc/filesystems").expect("/proc is mounted");
    for wanted in ["erofs", "overlay"] {
        if !filesystems.split_whitespace().any(|name| name == wanted) {
            println!("SKIP the kernel has no {wanted}");
            return false;
        }
    }
    true
}

/// A layer with files of owner 0: `(path, content)`; `path@` is a link whose target is the content.
pub(crate) fn layer(dir: &Path, name: &str, files: &[(&str, &str)]) -> LayerSource {
    let tar_path = dir.join(format!("{name}.tar"));
    let mut builder = tar::Builder::new(File::create_new(&tar_path).unwrap());
    let mut parents: Vec<&Path> = files
        .iter()
        .flat_map(|(path, _)| Path::new(path).ancestors().skip(1))
        .filter(|path| !path.as_os_str().is_empty())
        .collect();
    parents.sort_unstable();
    parents.dedup();
    for parent in parents {
        let mut header = header(tar::EntryType::Directory, 0o755);
        builder.append_data(&mut header, parent, std::io::empty()).unwrap();
    }
    for (path, content) in files {
        if let Some(link) = path.strip_suffix('@') {
            let mut header = header(tar::EntryType::Symlink, 0o777);
            builder.append_link(&mut header, link, content).unwrap();
        } else {
            let mut header = header(tar::EntryType::Regular, 0o644);
            header.set_size(content.len() as u64);
            builder.append_data(&mut header, path, content.as_bytes()).unwrap();
        }
    }
    builder.into_inner().unwrap().flush().unwrap();

    let read = read_tar_file(&File::open(&tar_path).unwrap(), &Limits::default()).unwrap();
    let index = dir.join(format!("{name}.erofs"));
    let out = File::create_new(&index).unwrap();
    write_index(&read.tree, read.diff_id, read.tar_size, &[], out).unwrap();
    LayerSource { index, devices: vec![tar_path] }
}

fn header(kind: tar::EntryType, mode: u32) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(1_700_000_000);
    header.set_size(0);
    header
}

/// A user namespace that maps 0 to `base`, and the process that keeps it.
pub(crate) struct Userns {
    keeper: Child,
    namespace: File,
}

impl Userns {
    pub(crate) fn new(base: u32) -> Self {
        let keeper = Command::new("unshare")
            .args(["--user", "cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("unshare is a part of util-linux");
        let proc = format!("/proc/{}", keeper.id());
        let own = fs::read_link("/proc/self/ns/user").unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        while fs::read_link(format!("{proc}/ns/user")).unwrap() == own {
            assert!(Instant::now() < deadline, "no new user namespace");
            std::thread::yield_now();
        }
        for map in ["gid_map", "uid_map"] {
            fs::write(format!("{proc}/{map}"), format!("0 {base} 65536\n")).unwrap();
        }
        let namespace = File::open(format!("{proc}/ns/user")).unwrap();
        Self { keeper, namespace }
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.namespace.as_fd()
    }
}

impl Drop for Userns {
    fn drop(&mut self) {
        let _ = self.keeper.kill();
        let _ = self.keeper.wait();
    }
}
