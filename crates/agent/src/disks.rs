//! Flushing the guest's disks, and only those: a `sync` in a container would flush the whole host.

use std::collections::HashSet;
use std::fs::File;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// File systems that keep something, and for which `syncfs` does something.
const KEEPING: [&[u8]; 9] =
    [b"overlay", b"ext2", b"ext3", b"ext4", b"xfs", b"btrfs", b"f2fs", b"vfat", b"fuse"];

/// Flushes `/` and every other mount that keeps data. Blocks.
pub(crate) fn sync() -> std::io::Result<()> {
    let root = File::open("/")?;
    rustix::fs::syncfs(&root)?;
    // Without /proc there is no more to know.
    let Ok(table) = std::fs::read("/proc/self/mountinfo") else { return Ok(()) };
    for path in mount_points(&table) {
        if let Ok(directory) = File::open(&path) {
            rustix::fs::syncfs(&directory)?;
        }
    }
    Ok(())
}

/// One mount point for each device that keeps data (proc(5), `mountinfo`).
fn mount_points(table: &[u8]) -> Vec<PathBuf> {
    let mut devices = HashSet::new();
    let lines = table.split(|byte| *byte == b'\n');
    let paths = lines.filter_map(|line| {
        let fields: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
        let separator = fields.iter().position(|field| *field == b"-")?;
        let kind = fields.get(separator + 1)?;
        let read_only = fields.get(5)?.split(|byte| *byte == b',').any(|option| option == b"ro");
        let keeps = KEEPING.contains(kind) && !read_only;
        (keeps && devices.insert(fields.get(2)?.to_vec())).then(|| unescape(fields[4]))
    });
    paths.collect()
}

/// Undoes the octal escapes of a mount table.
fn unescape(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, tail)) = rest.split_first() {
        let octal = tail.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) if *first == b'\\' => {
                bytes.push(byte);
                rest = &tail[3..];
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    std::ffi::OsString::from_vec(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_mount_point_for_each_device_that_keeps_data() {
        let table = b"20 1 0:30 / / rw,relatime - overlay overlay rw\n\
            21 20 0:31 / /proc rw - proc proc rw\n\
            22 20 8:1 / /with\\040space rw shared:1 - ext4 /dev/sda1 rw\n\
            23 20 8:1 /sub /again rw - ext4 /dev/sda1 rw\n\
            24 20 8:2 / /ro ro,nodev - ext4 /dev/sda2 rw\n\
            broken\n";
        let expected = [PathBuf::from("/"), PathBuf::from("/with space")];
        assert_eq!(mount_points(table), expected);
    }
}
